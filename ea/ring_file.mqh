// One record of the ring as it lies in a file.
//
// A record is: mark, kind, number (8 bytes), items, length of the cursors, length of the body, checksum; cursors; body.
// All integers are little endian as FileWriteInteger writes them, 4 bytes if nothing else is said.

#ifndef TICKPIPE_RING_FILE_MQH
#define TICKPIPE_RING_FILE_MQH

#define RECORD_MARK 0x31525054 // "TPR1"
#define RECORD_HEADER_BYTES 32

// Nothing that the EA writes is longer; a longer one is a torn record.
#define MOST_RECORD_BYTES 33554432

enum RecordKind {
    RECORD_TICKS = 1,
    RECORD_BARS = 2,
    // The server has everything up to this number.
    RECORD_CONFIRMED = 3,
    // Cursors, and up to which number the server has everything. The first record of a file has all cursors.
    RECORD_CURSORS = 4,
    // Ticks that a server lacked and asked for.
    RECORD_FILL = 5
};

struct RecordHeader {
    int kind;
    long number;
    int items;
    int cursor_bytes;
    int body_bytes;
    uint checksum;
};

// FNV-1a, continued.
uint Checksum(const uint before, const char &bytes[], const int count) {
    uint sum = before;
    for(int i = 0; i < count; i++)
        sum = (sum ^ (uint)(uchar)bytes[i]) * (uint)16777619;
    return sum;
}

#define CHECKSUM_SEED 2166136261

// False when not all of it could be written: the disk is full.
bool WriteRecord(const int file, const RecordHeader &header, const char &cursors[], const char &body[]) {
    uint written = FileWriteInteger(file, RECORD_MARK, INT_VALUE);
    written += FileWriteInteger(file, header.kind, INT_VALUE);
    written += FileWriteLong(file, header.number);
    written += FileWriteInteger(file, header.items, INT_VALUE);
    written += FileWriteInteger(file, header.cursor_bytes, INT_VALUE);
    written += FileWriteInteger(file, header.body_bytes, INT_VALUE);
    written += FileWriteInteger(file, (int)header.checksum, INT_VALUE);
    if(header.cursor_bytes > 0)
        written += FileWriteArray(file, cursors, 0, header.cursor_bytes);
    if(header.body_bytes > 0)
        written += FileWriteArray(file, body, 0, header.body_bytes);
    FileFlush(file);
    return written == (uint)(RECORD_HEADER_BYTES + header.cursor_bytes + header.body_bytes);
}

// False at the end of the file, and where a record is torn.
bool ReadRecord(const int file, RecordHeader &header, char &cursors[], char &body[]) {
    if(FileTell(file) + RECORD_HEADER_BYTES > FileSize(file))
        return false;
    if(FileReadInteger(file, INT_VALUE) != RECORD_MARK)
        return false;
    header.kind = FileReadInteger(file, INT_VALUE);
    header.number = FileReadLong(file);
    header.items = FileReadInteger(file, INT_VALUE);
    header.cursor_bytes = FileReadInteger(file, INT_VALUE);
    header.body_bytes = FileReadInteger(file, INT_VALUE);
    header.checksum = (uint)FileReadInteger(file, INT_VALUE);
    if(header.cursor_bytes < 0 || header.body_bytes < 0 || header.cursor_bytes > MOST_RECORD_BYTES ||
       header.body_bytes > MOST_RECORD_BYTES)
        return false;
    ArrayResize(cursors, header.cursor_bytes);
    ArrayResize(body, header.body_bytes);
    if(header.cursor_bytes > 0 && FileReadArray(file, cursors, 0, header.cursor_bytes) != (uint)header.cursor_bytes)
        return false;
    if(header.body_bytes > 0 && FileReadArray(file, body, 0, header.body_bytes) != (uint)header.body_bytes)
        return false;
    uint sum = Checksum((uint)CHECKSUM_SEED, cursors, header.cursor_bytes);
    return Checksum(sum, body, header.body_bytes) == header.checksum;
}

#endif
