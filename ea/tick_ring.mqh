// The queue on the disk: every request is here before it is posted, and leaves only when a server has confirmed it. So the
// very same request is sent again after a lost answer or a crash of the terminal, and in its order.
//
// The queue is a row of files in DataCollectorPRO\BROKER of the folder that all terminals of the PC share, each about a
// megabyte. A file is only ever written at its end. It begins with all cursors, so that older files can be deleted once what
// they hold is confirmed. Each record carries the cursors that are true once it is stored: a torn record takes its cursors
// with it, and its ticks are read from the terminal again. What was written is flushed and read back before the cursors move;
// that shows a full disk. MQL5 cannot make a disk write its cache, so a power cut may take the newest records, and then their
// ticks are read again as well.
//
// The ring is bounded. When it is full, nothing is added: the cursors stand still, and the newer ticks wait in the
// terminal's own tick history.

#ifndef TICKPIPE_TICK_RING_MQH
#define TICKPIPE_TICK_RING_MQH

#include "cursor_marks.mqh"
#include "ring_file.mqh"

// A new file is begun behind so many bytes, or an eighth of the ring.
#define RING_FILE_BYTES 1048576

// A record that waits for confirmation.
struct RingEntry {
    long number;
    int kind;
    int items;
    int file;
    ulong offset;
};

class TickRing {
private:
    string m_folder;
    ulong m_most_bytes;
    ulong m_most_file_bytes;
    int m_lock;
    // The newest file, open for writing, and its number; the oldest that still exists.
    int m_writer;
    int m_newest;
    int m_oldest;
    ulong m_bytes;
    ulong m_file_bytes[];
    long m_last_number;
    long m_confirmed;
    // Entries before m_first are confirmed.
    RingEntry m_entries[];
    int m_first;
    CursorMarks m_marks;
    // Up to which number records are missing that a later file goes on behind, and the cursors of before them.
    long m_missing_to;
    CursorMarks m_marks_before;
    // The body of the record m_cached, when it was just written.
    char m_cache[];
    long m_cached;

    string FileName(const int file) const { return m_folder + "\\" + IntegerToString(file, 8, '0') + ".ring"; }

    void AddEntry(const RecordHeader &header, const int file, const ulong offset) {
        int count = ArraySize(m_entries);
        ArrayResize(m_entries, count + 1, 4096);
        m_entries[count].number = header.number;
        m_entries[count].kind = header.kind;
        m_entries[count].items = header.items;
        m_entries[count].file = file;
        m_entries[count].offset = offset;
    }

    // Reads what a file holds; false when it is there and cannot be read: a backup or a scanner may have it for a moment.
    bool Scan(const int file) {
        int handle = FileOpen(FileName(file), FILE_READ | FILE_BIN | FILE_SHARE_READ | FILE_COMMON);
        if(handle == INVALID_HANDLE)
            return !FileIsExist(FileName(file), FILE_COMMON);
        RecordHeader header = {};
        char cursors[];
        char body[];
        while(!IsStopped()) {
            ulong offset = FileTell(handle);
            if(!ReadRecord(handle, header, cursors, body)) {
                if(offset < FileSize(handle))
                    Print(FileName(file), ": a record cannot be read and is left out: a power cut or a full disk.");
                break;
            }
            m_marks.Read(cursors, header.cursor_bytes);
            if(header.kind == RECORD_TICKS || header.kind == RECORD_BARS || header.kind == RECORD_FILL) {
                // What was before the oldest file is confirmed.
                if(file > m_oldest && header.number > m_last_number + 1)
                    m_missing_to = header.number - 1;
                AddEntry(header, file, offset);
                m_last_number = (long)MathMax(m_last_number, header.number);
            } else {
                m_confirmed = (long)MathMax(m_confirmed, header.number);
                m_last_number = (long)MathMax(m_last_number, header.number);
            }
        }
        m_file_bytes[file - m_oldest] = FileSize(handle);
        m_bytes += FileSize(handle);
        FileClose(handle);
        return true;
    }

    bool FindFiles() {
        string name;
        m_oldest = 0;
        m_newest = 0;
        long search = FileFindFirst(m_folder + "\\*.ring", name, FILE_COMMON);
        if(search == INVALID_HANDLE)
            return false;
        do {
            int number = (int)StringToInteger(StringSubstr(name, 0, 8));
            if(number > 0 && (m_oldest == 0 || number < m_oldest))
                m_oldest = number;
            if(number > m_newest)
                m_newest = number;
        } while(!IsStopped() && FileFindNext(search, name));
        FileFindClose(search);
        return m_oldest > 0;
    }

    // One record of a file; false when it is not whole.
    bool ReadAt(const int file, const ulong offset, RecordHeader &header, char &body[]) const {
        int handle = FileOpen(FileName(file), FILE_READ | FILE_BIN | FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_COMMON);
        if(handle == INVALID_HANDLE)
            return false;
        char cursors[];
        FileSeek(handle, (long)offset, SEEK_SET);
        bool read = ReadRecord(handle, header, cursors, body);
        FileClose(handle);
        return read;
    }

    // Whether a record that was just written is there: a disk may be full without saying so.
    bool IsThere(const RecordHeader &written, const ulong offset) const {
        RecordHeader header = {};
        char body[];
        return ReadAt(m_newest, offset, header, body) && header.number == written.number &&
               header.checksum == written.checksum;
    }

    // Appends a record to the newest file; false when the disk did not take it.
    bool Write(RecordHeader &header, const char &cursors[], const char &body[]) {
        if(m_writer == INVALID_HANDLE)
            return false;
        ulong before = m_file_bytes[m_newest - m_oldest];
        header.cursor_bytes = ArraySize(cursors);
        header.body_bytes = ArraySize(body);
        header.checksum = Checksum(Checksum((uint)CHECKSUM_SEED, cursors, header.cursor_bytes), body, header.body_bytes);
        bool written = WriteRecord(m_writer, header, cursors, body);
        ulong after = FileSize(m_writer);
        m_file_bytes[m_newest - m_oldest] = after;
        m_bytes += after - before;
        return written && IsThere(header, before);
    }

    // Begins a file with all cursors in it.
    bool BeginFile() {
        StopWriting();
        m_newest++;
        // Files that were not found are not written over.
        while(m_oldest == 0 && FileIsExist(FileName(m_newest), FILE_COMMON) && !IsStopped())
            m_newest++;
        if(m_oldest == 0)
            m_oldest = m_newest;
        ArrayResize(m_file_bytes, m_newest - m_oldest + 1, 64);
        m_file_bytes[m_newest - m_oldest] = 0;
        m_writer = FileOpen(FileName(m_newest), FILE_WRITE | FILE_BIN | FILE_SHARE_READ | FILE_COMMON);
        RecordHeader header = {};
        header.kind = RECORD_CURSORS;
        header.number = m_confirmed;
        header.items = 0;
        char cursors[];
        char nothing[];
        m_marks.Write(cursors);
        if(Write(header, cursors, nothing))
            return true;
        // A file that does not begin with all cursors must not be the newest.
        StopWriting();
        FileDelete(FileName(m_newest), FILE_COMMON);
        m_bytes -= m_file_bytes[m_newest - m_oldest];
        m_newest--;
        if(m_newest < m_oldest)
            m_oldest = m_newest;
        return false;
    }

    // The next record begins a file: nothing may follow a torn record.
    void StopWriting() {
        if(m_writer != INVALID_HANDLE)
            FileClose(m_writer);
        m_writer = INVALID_HANDLE;
    }

    // Deletes the files in which everything is confirmed, but the newest.
    void DeleteDone() {
        int needed = m_first < ArraySize(m_entries) ? m_entries[m_first].file : m_newest;
        if(needed <= m_oldest)
            return;
        int gone = needed - m_oldest;
        for(int i = 0; i < gone && !IsStopped(); i++) {
            FileDelete(FileName(m_oldest + i), FILE_COMMON);
            m_bytes -= m_file_bytes[i];
        }
        int left = ArraySize(m_file_bytes) - gone;
        for(int i = 0; i < left; i++)
            m_file_bytes[i] = m_file_bytes[i + gone];
        ArrayResize(m_file_bytes, left, 64);
        m_oldest = needed;
    }

    void ForgetConfirmed() {
        int left = ArraySize(m_entries) - m_first;
        for(int i = 0; i < left; i++)
            m_entries[i] = m_entries[m_first + i];
        ArrayResize(m_entries, left, 4096);
        m_first = 0;
    }

    void Forget() {
        m_lock = INVALID_HANDLE;
        m_writer = INVALID_HANDLE;
        m_newest = 0;
        m_oldest = 0;
        m_bytes = 0;
        m_last_number = 0;
        m_confirmed = 0;
        m_first = 0;
        m_cached = -1;
        ArrayResize(m_entries, 0);
        ArrayResize(m_file_bytes, 0);
        m_marks.Clear();
        m_missing_to = 0;
        m_marks_before.Clear();
    }

public:
    TickRing() : m_folder(""), m_most_bytes(0), m_most_file_bytes(0) { Forget(); }

    // Opens the ring of a folder that all terminals of the PC share. False when another program has it, or nothing can be
    // written.
    bool Open(const string folder, const int most_megabytes) {
        Forget();
        m_folder = folder;
        m_most_bytes = (ulong)most_megabytes * 1048576;
        m_most_file_bytes = (ulong)MathMin(m_most_bytes / 8, (ulong)RING_FILE_BYTES);
        // Without sharing: a second program on the same broker, in this terminal or another, would send every tick twice.
        m_lock = FileOpen(folder + "\\lock", FILE_WRITE | FILE_BIN | FILE_COMMON);
        if(m_lock == INVALID_HANDLE)
            return false;
        if(FindFiles()) {
            ArrayResize(m_file_bytes, m_newest - m_oldest + 1, 64);
            for(int file = m_oldest; file <= m_newest && !IsStopped(); file++) {
                m_file_bytes[file - m_oldest] = 0;
                if(m_missing_to == 0)
                    m_marks.CopyTo(m_marks_before);
                if(!Scan(file))
                    return false;
            }
        }
        if(IsStopped())
            return false;
        while(m_first < ArraySize(m_entries) && m_entries[m_first].number <= m_confirmed)
            m_first++;
        ForgetConfirmed();
        // The files are not written to the disk in their order: a power cut may leave a newer one whole.
        if(m_missing_to > m_confirmed) {
            Print(folder, ": requests up to ", IntegerToString(m_missing_to), " are missing; their ticks are read again.");
            m_marks.GoBackTo(m_marks_before);
        }
        // Never behind a torn record.
        if(!BeginFile())
            return false;
        DeleteDone();
        return true;
    }

    void Close() {
        StopWriting();
        if(m_lock != INVALID_HANDLE)
            FileClose(m_lock);
        m_lock = INVALID_HANDLE;
    }

    // How many requests wait, and the bytes of all files.
    int Waiting() const { return ArraySize(m_entries) - m_first; }
    ulong Bytes() const { return m_bytes; }
    bool IsFull() const { return Waiting() > 0 && m_bytes >= m_most_bytes; }

    bool FindMark(const string symbol, CursorMark &mark) const { return m_marks.Find(symbol, mark); }

    // Stores cursors without a request: where a symbol begins that never had a tick.
    void Remember(const CursorMark &marks[]) {
        for(int i = 0; i < ArraySize(marks); i++)
            m_marks.Set(marks[i]);
        RecordHeader header = {};
        header.kind = RECORD_CURSORS;
        header.number = m_confirmed;
        char cursors[];
        char nothing[];
        MarkLines(marks, cursors);
        if(!Write(header, cursors, nothing))
            StopWriting(); // the next file begins with them
    }

    // Stores a request and the cursors that are true with it. False when the disk did not take it: nothing has changed.
    bool Append(const int kind, const int items, const char &body[], const CursorMark &marks[]) {
        if((m_writer == INVALID_HANDLE || m_file_bytes[m_newest - m_oldest] >= m_most_file_bytes) && !BeginFile())
            return false;
        char cursors[];
        MarkLines(marks, cursors);
        RecordHeader header = {};
        header.kind = kind;
        header.number = m_last_number + 1;
        header.items = items;
        ulong offset = m_file_bytes[m_newest - m_oldest];
        if(!Write(header, cursors, body)) {
            StopWriting();
            return false;
        }
        m_last_number++;
        AddEntry(header, m_newest, offset);
        for(int i = 0; i < ArraySize(marks); i++)
            m_marks.Set(marks[i]);
        if(Waiting() == 1) {
            ArrayResize(m_cache, ArraySize(body));
            ArrayCopy(m_cache, body);
            m_cached = header.number;
        }
        return true;
    }

    // Number of the oldest request that waits; 0 when none does.
    long HeadNumber() const { return Waiting() == 0 ? 0 : m_entries[m_first].number; }

    // The oldest request that waits.
    bool ReadHead(long &number, int &kind, int &items, char &body[]) {
        if(Waiting() == 0)
            return false;
        number = m_entries[m_first].number;
        kind = m_entries[m_first].kind;
        items = m_entries[m_first].items;
        if(m_cached == number) {
            ArrayResize(body, ArraySize(m_cache));
            ArrayCopy(body, m_cache);
            return true;
        }
        RecordHeader header = {};
        return ReadAt(m_entries[m_first].file, m_entries[m_first].offset, header, body) && header.number == number;
    }

    // Whether the file of the oldest request is there and cannot be opened now.
    bool IsHeadHeld() const {
        string name = FileName(m_entries[m_first].file);
        int handle = FileOpen(name, FILE_READ | FILE_BIN | FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_COMMON);
        if(handle != INVALID_HANDLE)
            FileClose(handle);
        return handle == INVALID_HANDLE && FileIsExist(name, FILE_COMMON);
    }

    // A server has the oldest request.
    void Confirm() {
        if(Waiting() == 0)
            return;
        m_confirmed = m_entries[m_first].number;
        m_first++;
        // When this cannot be written, the request is sent once more after a restart, which changes no candle.
        RecordHeader header = {};
        header.kind = RECORD_CONFIRMED;
        header.number = m_confirmed;
        header.items = 0;
        char nothing[];
        if(!Write(header, nothing, nothing))
            StopWriting();
        DeleteDone();
        if(m_first >= 4096 || m_first == ArraySize(m_entries))
            ForgetConfirmed();
    }
};

#endif
