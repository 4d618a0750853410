// As much of MQL5 as the EA uses, for C++17: types, arrays, strings and files here, the market in market.hpp, HTTP in
// web_request.hpp. Behaviour follows MetaQuotes' reference; what a test needs to script is a member of `terminal`.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <map>
#include <random>
#include <sstream>
#include <vector>
#include <string>

#include <sys/file.h>
#include <unistd.h>

using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;
using datetime = long;
static_assert(sizeof(long) == 8 && sizeof(int) == 4, "MQL5's long has 8 bytes");

// MQL5's string. Bytes instead of UTF-16, which is the same for all that the EA looks into.
class string {
public:
    std::string text;
    string() = default;
    string(const char *from) : text(from ? from : "") {}
    string(std::string from) : text(std::move(from)) {}
    string &operator+=(const string &more) { text += more.text; return *this; }
    friend string operator+(const string &a, const string &b) { return string(a.text + b.text); }
    friend bool operator==(const string &a, const string &b) { return a.text == b.text; }
    friend bool operator!=(const string &a, const string &b) { return a.text != b.text; }
};

// A dynamic array. Reaching outside ends the program, as in MetaTrader.
template <typename T> class Array {
public:
    std::vector<T> items;
    T &operator[](size_t i) { check(i); return items[i]; }
    const T &operator[](size_t i) const { check(i); return items[i]; }
private:
    void check(size_t i) const {
        if(i >= items.size()) {
            std::fprintf(stderr, "array out of range: %zu of %zu\n", i, items.size());
            std::abort();
        }
    }
};

template <typename T> int ArraySize(const Array<T> &array) { return (int)array.items.size(); }

template <typename T> int ArrayResize(Array<T> &array, int size, int reserve = 0) {
    (void)reserve;
    array.items.resize((size_t)size);
    return size;
}

inline const int WHOLE_ARRAY = -1;

template <typename T> int ArrayCopy(Array<T> &to, const Array<T> &from, int to_start = 0, int from_start = 0, int count = WHOLE_ARRAY) {
    int most = ArraySize(from) - from_start;
    if(count == WHOLE_ARRAY || count > most)
        count = most;
    if(count <= 0)
        return 0;
    if(ArraySize(to) < to_start + count)
        ArrayResize(to, to_start + count);
    std::copy_n(from.items.begin() + from_start, count, to.items.begin() + to_start);
    return count;
}

// ---- what a test scripts ----

struct Terminal {
    // True UTC. It moves by commands, by what calls are said to cost, and by the time that a request really takes.
    long now_ms = 0;
    // The broker's clock ahead of UTC, and the error of the PC's own clock.
    int broker_offset_s = 0;
    long pc_error_ms = 0;
    // MQL5\Files of this terminal, and the folder that all terminals of the PC share.
    std::string files;
    std::string common;
    std::string server = "Broker-Demo";
    bool connected = true;
    // Beginnings of the URLs that WebRequest may use.
    std::vector<std::string> allowed;
    // Bytes that the disk still takes; negative is no limit. Where it shows late, writing says that all is well.
    long disk_bytes = -1;
    bool disk_shows_late = false;
    // Whether the terminal gives the program a timer.
    bool has_timers = true;
    // How long an answer takes by the terminal's clock (ms); -1: see web_request.hpp.
    long answer_ms = -1;
    std::string comment;
    int last_error = 0;
    // Calls into the terminal until the user stops the program; negative is never.
    long calls_until_stop = -1;
    // When the user stops a service (ms); 0 is never.
    long stopped_at_ms = 0;
    // Calls that read ticks or bars or send, after that.
    int calls_after_stop = 0;
    // What calls cost (ns), see market.hpp.
    long cost_ns = 0;
};
inline Terminal terminal;

// Each call into the terminal that reads the market or the network begins with this.
inline void note_call(long cost_ns, bool is_heavy) {
    terminal.cost_ns += cost_ns;
    if(terminal.calls_until_stop > 0)
        terminal.calls_until_stop--;
    else if(terminal.calls_until_stop == 0 && is_heavy)
        terminal.calls_after_stop++;
}

inline bool IsStopped() { return terminal.calls_until_stop == 0; }

// Time passes for a service while it sleeps.
inline void Sleep(int ms) {
    terminal.now_ms += ms;
    if(terminal.stopped_at_ms != 0 && terminal.now_ms >= terminal.stopped_at_ms)
        terminal.calls_until_stop = 0;
}

inline int GetLastError() { return terminal.last_error; }
inline void ResetLastError() { terminal.last_error = 0; }

// ---- time ----

inline ulong GetTickCount64() { return (ulong)terminal.now_ms; }
// Both are computed from the PC's clock, as the reference says of TimeTradeServer.
inline datetime TimeGMT() { return (terminal.now_ms + terminal.pc_error_ms) / 1000; }
inline datetime TimeTradeServer() { return TimeGMT() + terminal.broker_offset_s; }

inline string TimeToString(datetime time) {
    char text[32];
    std::time_t seconds = time;
    std::strftime(text, sizeof text, "%Y.%m.%d %H:%M", std::gmtime(&seconds));
    return string(text);
}

struct MqlDateTime { int year, mon, day, hour, min, sec, day_of_week, day_of_year; };

inline bool TimeToStruct(datetime time, MqlDateTime &parts) {
    std::time_t seconds = time;
    const std::tm *utc = std::gmtime(&seconds);
    parts = {utc->tm_year + 1900, utc->tm_mon + 1, utc->tm_mday, utc->tm_hour, utc->tm_min, utc->tm_sec, utc->tm_wday, utc->tm_yday};
    return true;
}

// ---- numbers and strings ----

inline bool MathIsValidNumber(double x) { return std::isfinite(x); }
inline double MathRound(double x) { return std::round(x); }
template <typename T> T MathAbs(T x) { return x < 0 ? -x : x; }
template <typename T> T MathMin(T a, T b) { return a < b ? a : b; }
template <typename T> T MathMax(T a, T b) { return a > b ? a : b; }
inline std::minstd_rand random_numbers;
inline void MathSrand(int seed) { random_numbers.seed((uint)seed); }
inline int MathRand() { return (int)(random_numbers() % 32768); }

inline string IntegerToString(long number, int length = 0, ushort fill = ' ') {
    std::string text = std::to_string(number);
    while((int)text.size() < length)
        text.insert(text.begin(), (char)fill);
    return string(text);
}

inline string StringFormat(const char *format, double value) {
    char text[64];
    std::snprintf(text, sizeof text, format, value);
    return string(text);
}

inline string StringFormat(const char *format, uchar value) {
    char text[8];
    std::snprintf(text, sizeof text, format, value);
    return string(text);
}

inline string DoubleToString(double value, int digits) {
    char text[400];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return string(text);
}

inline double StringToDouble(const string &s) { return std::strtod(s.text.c_str(), nullptr); }
inline long StringToInteger(const string &s) { return std::strtol(s.text.c_str(), nullptr, 10); }
inline int StringLen(const string &s) { return (int)s.text.size(); }
inline ushort StringGetCharacter(const string &s, int at) { return (uchar)s.text[(size_t)at]; }

inline int StringFind(const string &s, const string &wanted, int start = 0) {
    size_t at = s.text.find(wanted.text, (size_t)start);
    return at == std::string::npos ? -1 : (int)at;
}

inline string StringSubstr(const string &s, int start, int length = -1) {
    if(start >= StringLen(s) || length == 0)
        return string();
    return string(s.text.substr((size_t)start, length < 0 ? std::string::npos : (size_t)length));
}

inline int StringReplace(string &s, const string &from, const string &to) {
    int count = 0;
    for(size_t at = 0; (at = s.text.find(from.text, at)) != std::string::npos; at += to.text.size(), count++)
        s.text.replace(at, from.text.size(), to.text);
    return count;
}

inline bool StringToLower(string &s) {
    for(char &c : s.text)
        c = (char)std::tolower((uchar)c);
    return true;
}

inline int StringTrimLeft(string &s) {
    size_t count = std::min(s.text.find_first_not_of(" \t\r\n"), s.text.size());
    s.text.erase(0, count);
    return (int)count;
}

inline int StringTrimRight(string &s) {
    size_t before = s.text.size();
    s.text.erase(s.text.find_last_not_of(" \t\r\n") + 1);
    return (int)(before - s.text.size());
}

inline int StringSplit(const string &s, ushort separator, Array<string> &parts) {
    parts.items.clear();
    if(s.text.empty())
        return 0;
    std::stringstream stream(s.text + (char)separator);
    for(std::string part; std::getline(stream, part, (char)separator);)
        parts.items.push_back(part);
    return ArraySize(parts);
}

const uint CP_UTF8 = 65001;

// As in MQL5: with WHOLE_ARRAY the terminating 0 is copied too.
template <class Byte>
int StringToCharArray(const string &s, Array<Byte> &array, int start, int count, uint codepage) {
    (void)codepage;
    std::string bytes = s.text;
    if(count == WHOLE_ARRAY)
        bytes.push_back('\0');
    else
        bytes.resize((size_t)std::min(count, (int)bytes.size()));
    if(ArraySize(array) < start + (int)bytes.size())
        ArrayResize(array, start + (int)bytes.size());
    std::copy(bytes.begin(), bytes.end(), array.items.begin() + start);
    return (int)bytes.size();
}

inline string CharArrayToString(const Array<char> &array, int start, int count, uint codepage) {
    (void)codepage;
    std::string text(array.items.begin() + start, array.items.begin() + start + count);
    return string(text.substr(0, text.find('\0')));
}

// ---- log ----

inline std::string as_text(const string &s) { return s.text; }
template <typename T> std::string as_text(T number) { return std::to_string(number); }

// One line on stdout, which the test reads as the Experts log.
inline void log_line(const char *kind, std::string line) {
    std::replace(line.begin(), line.end(), '\n', ' ');
    std::printf("%s %s\n", kind, line.c_str());
}

template <typename... Parts> void Print(const Parts &...parts) { log_line("log", (std::string() + ... + as_text(string(parts)))); }
template <typename... Parts> void Alert(const Parts &...parts) { log_line("alert", (std::string() + ... + as_text(string(parts)))); }
inline void Comment(const string &text) { terminal.comment = text.text; }

// ---- files, below terminal.files or terminal.common ----

const int INVALID_HANDLE = -1;
const int FILE_READ = 1, FILE_WRITE = 2, FILE_BIN = 4, FILE_SHARE_READ = 128, FILE_SHARE_WRITE = 256, FILE_COMMON = 4096;
const int INT_VALUE = 4;

struct OpenFile { std::FILE *file = nullptr; };
inline std::map<int, OpenFile> open_files;

inline std::string path_of(const string &name, int flags) {
    std::string path = name.text;
    std::replace(path.begin(), path.end(), '\\', '/');
    return ((flags & FILE_COMMON) ? terminal.common : terminal.files) + "/" + path;
}

// Without a sharing flag nobody else may have the file, which flock stands for.
inline int FileOpen(const string &name, int flags) {
    std::string path = path_of(name, flags);
    if(flags & FILE_WRITE)
        std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    bool exclusive = !(flags & (FILE_SHARE_READ | FILE_SHARE_WRITE));
    if((flags & FILE_WRITE) && terminal.disk_bytes == 0 && !terminal.disk_shows_late)
        return INVALID_HANDLE;
    std::FILE *file = std::fopen(path.c_str(), (flags & FILE_WRITE) ? (exclusive ? "ab+" : "wb+") : "rb");
    if(!file)
        return INVALID_HANDLE;
    int wanted = exclusive ? LOCK_EX : LOCK_SH;
    if(flock(fileno(file), wanted | LOCK_NB) != 0) {
        std::fclose(file);
        return INVALID_HANDLE;
    }
    static int next = 1;
    open_files[next].file = file;
    return next++;
}

inline void FileClose(int handle) {
    std::fclose(open_files.at(handle).file);
    open_files.erase(handle);
}

inline void FileFlush(int handle) { std::fflush(open_files.at(handle).file); }
inline ulong FileTell(int handle) { return (ulong)std::ftell(open_files.at(handle).file); }
inline bool FileSeek(int handle, long offset, int) { return std::fseek(open_files.at(handle).file, offset, SEEK_SET) == 0; }
inline bool FileIsExist(const string &name, int flags = 0) { return std::filesystem::exists(path_of(name, flags)); }
inline bool FileDelete(const string &name, int flags = 0) { return std::filesystem::remove(path_of(name, flags)); }

inline ulong FileSize(int handle) {
    std::FILE *file = open_files.at(handle).file;
    long at = std::ftell(file);
    std::fseek(file, 0, SEEK_END);
    long size = std::ftell(file);
    std::fseek(file, at, SEEK_SET);
    return (ulong)size;
}

inline size_t write_bytes(int handle, const void *bytes, size_t count) {
    size_t said = count;
    if(terminal.disk_bytes >= 0) {
        count = std::min(count, (size_t)terminal.disk_bytes);
        terminal.disk_bytes -= (long)count;
    }
    size_t written = std::fwrite(bytes, 1, count, open_files.at(handle).file);
    return terminal.disk_shows_late ? said : written;
}

inline uint FileWriteInteger(int handle, int value, int size) { return (uint)write_bytes(handle, &value, (size_t)size); }
inline uint FileWriteLong(int handle, long value) { return (uint)write_bytes(handle, &value, 8); }

inline uint FileWriteArray(int handle, const Array<char> &array, int start, int count) {
    return (uint)write_bytes(handle, array.items.data() + start, (size_t)count);
}

inline int FileReadInteger(int handle, int size) {
    int value = 0;
    return std::fread(&value, 1, (size_t)size, open_files.at(handle).file) == (size_t)size ? value : 0;
}

inline long FileReadLong(int handle) {
    long value = 0;
    return std::fread(&value, 1, 8, open_files.at(handle).file) == 8 ? value : 0;
}

inline uint FileReadArray(int handle, Array<char> &array, int start, int count) {
    if(ArraySize(array) < start + count)
        ArrayResize(array, start + count);
    return (uint)std::fread(array.items.data() + start, 1, (size_t)count, open_files.at(handle).file);
}

struct FileSearch { std::vector<std::string> names; size_t next = 0; };
inline std::map<long, FileSearch> searches;

inline bool FileFindNext(long search, string &name) {
    FileSearch &found = searches.at(search);
    if(found.next == found.names.size())
        return false;
    name = string(found.names[found.next++]);
    return true;
}

// Filters of the form FOLDER\*.ENDING, in no order at all.
inline long FileFindFirst(const string &filter, string &name, int flags = 0) {
    std::filesystem::path pattern = path_of(filter, flags);
    static long next = 1;
    FileSearch &found = searches[next];
    std::error_code error;
    for(const auto &entry : std::filesystem::directory_iterator(pattern.parent_path(), error))
        if(entry.path().extension() == pattern.extension())
            found.names.push_back(entry.path().filename().string());
    if(!FileFindNext(next, name))
        return INVALID_HANDLE;
    return next++;
}

inline void FileFindClose(long search) { searches.erase(search); }

// ---- the program ----

enum { INIT_SUCCEEDED = 0, INIT_FAILED = 1, INIT_PARAMETERS_INCORRECT = 32767 };
enum { MQL_TESTER = 1 };
enum { TERMINAL_BUILD = 1, TERMINAL_CONNECTED = 2 };
enum { ACCOUNT_LOGIN = 1, ACCOUNT_SERVER = 2 };
inline long MQLInfoInteger(int) { return 0; }
inline long TerminalInfoInteger(int what) { return what == TERMINAL_BUILD ? 5000 : terminal.connected; }
inline long AccountInfoInteger(int) { return 12345; }
inline string AccountInfoString(int) { return string(terminal.server); }
inline bool EventSetMillisecondTimer(int) { return terminal.has_timers; }
inline void EventKillTimer() {}
