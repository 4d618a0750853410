// The inputs of the EA and of the service, and what is wrong with them.

#ifndef TICKPIPE_INPUTS_MQH
#define TICKPIPE_INPUTS_MQH

#include "settings.mqh"

input group "Where to / Para onde"
input string RelayUrl = "http://127.0.0.1:18000"; // Relay on this PC, or empty / Relay neste PC, ou vazio
input string ServerUrl = "";                      // Server, if the relay is away / Servidor, se o relay faltar
input string ApiKey = "";                         // API key, or @FILE / Chave de API, ou @ARQUIVO
input string Source = "";                         // Name of the feed; auto: broker / Nome da fonte; auto: corretora

input group "What / O quê"
input string Symbols = "";                        // Symbols or @FILE; empty: Market Watch / Símbolos ou @ARQUIVO
input bool SendBars = true;                       // Send closed M1 bars too / Enviar também barras M1 fechadas
input bool FillGaps = true;                       // Send what the server lacks / Enviar o que falta no servidor
input ClockOffset Clock = CLOCK_AUTO;             // Broker's clock / Relógio da corretora
input int ClockMinutes = 0;                       // Minutes ahead of UTC, if fixed / Minutos do UTC, se fixo

input group "How / Como"
input int TimerMs = 250;                          // Pause between readings, ms / Pausa entre leituras, ms
input int TimeoutMs = 2500;                       // Longest wait for an answer, ms / Espera máxima, ms
input int MaxTicks = 2000;                        // Ticks of a request, about / Ticks por requisição
input int RingMegabytes = 64;                     // Disk for unsent ticks, MB / Disco para ticks não enviados, MB
input int CatchUpHours = 168;                     // Hours caught up after a pause / Horas recuperadas após pausa
input int FirstHours = 0;                         // Hours of history at first start / Horas de histórico no início

// The dialog cuts longer texts off without a word.
#define LONGEST_TEXT 190
// No list of symbols and no key is longer (bytes).
#define MOST_FILE_BYTES 1048576

bool Within(const string name, const int value, const int least, const int most) {
    if(value >= least && value <= most)
        return true;
    Print(name, " must be from ", IntegerToString(least), " to ", IntegerToString(most), ", not ", IntegerToString(value), ".");
    return false;
}

bool IsShort(const string name, const string text) {
    if(StringLen(text) <= LONGEST_TEXT)
        return true;
    Print(name, " has more than ", IntegerToString(LONGEST_TEXT), " characters, and MetaTrader may have cut it off. ",
          "Cure: write it to a file in MQL5\\Files and give @ and the file's name.");
    return false;
}

// The text of an input, or of the file in MQL5\Files that it names as @FILE.
bool TextOf(const string name, const string given, string &text) {
    text = given;
    if(!IsShort(name, given))
        return false;
    if(StringSubstr(given, 0, 1) != "@")
        return true;
    string path = StringSubstr(given, 1);
    int file = FileOpen(path, FILE_READ | FILE_BIN | FILE_SHARE_READ);
    if(file == INVALID_HANDLE) {
        Print(name, ": MQL5\\Files\\", path, " cannot be opened.");
        return false;
    }
    char bytes[];
    int size = (int)MathMin(FileSize(file), (ulong)MOST_FILE_BYTES);
    ArrayResize(bytes, size);
    int read = size > 0 ? (int)FileReadArray(file, bytes, 0, size) : 0;
    FileClose(file);
    // Windows' editors begin UTF-8 with a mark.
    int begin = read >= 3 && (uchar)bytes[0] == 0xEF && (uchar)bytes[1] == 0xBB && (uchar)bytes[2] == 0xBF ? 3 : 0;
    text = read > begin ? CharArrayToString(bytes, begin, read - begin, CP_UTF8) : "";
    StringTrimLeft(text);
    StringTrimRight(text);
    return true;
}

// The settings that the inputs make; false when they cannot be used, and the log says why.
bool ReadInputs(CollectorSettings &settings) {
    if(!Within("TimerMs", TimerMs, 50, 60000) || !Within("TimeoutMs", TimeoutMs, 500, 2500) ||
       !Within("MaxTicks", MaxTicks, 1, 20000) || !Within("RingMegabytes", RingMegabytes, 1, 4096) ||
       !Within("CatchUpHours", CatchUpHours, 1, 720) || !Within("FirstHours", FirstHours, 0, CatchUpHours) ||
       !Within("ClockMinutes", ClockMinutes, -1080, 1080))
        return false;
    if(!IsShort("RelayUrl", RelayUrl) || !IsShort("ServerUrl", ServerUrl) || !IsShort("Source", Source) ||
       !TextOf("ApiKey", ApiKey, settings.api_key) || !TextOf("Symbols", Symbols, settings.symbols))
        return false;
    // A file has a symbol a line.
    StringReplace(settings.symbols, "\r", "");
    StringReplace(settings.symbols, "\n", ",");
    settings.relay_url = RelayUrl;
    settings.server_url = ServerUrl;
    settings.source = Source;
    settings.send_bars = SendBars;
    settings.fill_gaps = FillGaps;
    settings.timeout_ms = TimeoutMs;
    settings.max_ticks = MaxTicks;
    settings.ring_megabytes = RingMegabytes;
    settings.catch_up_hours = CatchUpHours;
    settings.first_hours = FirstHours;
    settings.clock = Clock;
    settings.fixed_offset_s = ClockMinutes * 60;
    return true;
}

#endif
