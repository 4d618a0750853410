// How far the ticks and bars of all symbols are, and how that is written into a record of the ring.

#ifndef TICKPIPE_CURSOR_MARKS_MQH
#define TICKPIPE_CURSOR_MARKS_MQH

#include "post_body.mqh"
#include "recent_ticks.mqh"

// How far a symbol's ticks and bars are in the ring or on the server.
struct CursorMark {
    string symbol;
    long msc;
    int taken;
    // Opening of the newest bar (seconds, broker's clock).
    long bar_time;
    // What the ticks of the last hours add up to.
    TickTotals recent;
    // The latest tick of the newest record of the symbol.
    long sent_msc;
};

void MarkLines(const CursorMark &marks[], char &bytes[]) {
    string lines = "";
    for(int i = 0; i < ArraySize(marks); i++)
        lines += marks[i].symbol + "\t" + IntegerToString(marks[i].msc) + "\t" + IntegerToString(marks[i].taken) + "\t" +
                 IntegerToString(marks[i].bar_time) + "\t" + IntegerToString(marks[i].recent.since_msc) + "\t" +
                 IntegerToString(marks[i].recent.count) + "\t" + IntegerToString((long)marks[i].recent.sum) + "\t" +
                 IntegerToString(marks[i].recent.before_msc) + "\t" + IntegerToString(marks[i].sent_msc) + "\n";
    ToUtf8(lines, bytes);
}

bool ReadMarkLine(const string line, CursorMark &mark) {
    string fields[];
    if(StringSplit(line, '\t', fields) != 9)
        return false;
    mark.symbol = fields[0];
    mark.msc = StringToInteger(fields[1]);
    mark.taken = (int)StringToInteger(fields[2]);
    mark.bar_time = StringToInteger(fields[3]);
    mark.recent.since_msc = StringToInteger(fields[4]);
    mark.recent.count = StringToInteger(fields[5]);
    mark.recent.sum = (ulong)StringToInteger(fields[6]);
    mark.recent.before_msc = StringToInteger(fields[7]);
    mark.sent_msc = StringToInteger(fields[8]);
    return true;
}

class CursorMarks {
private:
    CursorMark m_marks[];

public:
    void Clear() { ArrayResize(m_marks, 0); }

    void Set(const CursorMark &mark) {
        int count = ArraySize(m_marks);
        int i = 0;
        while(i < count && m_marks[i].symbol != mark.symbol)
            i++;
        if(i == count)
            ArrayResize(m_marks, count + 1, 64);
        m_marks[i] = mark;
    }

    // Takes over those of a record.
    void Read(const char &cursors[], const int count) {
        if(count == 0)
            return;
        string lines[];
        int found = StringSplit(CharArrayToString(cursors, 0, count, CP_UTF8), '\n', lines);
        CursorMark mark;
        for(int i = 0; i < found; i++)
            if(ReadMarkLine(lines[i], mark))
                Set(mark);
    }

    void Write(char &cursors[]) const { MarkLines(m_marks, cursors); }

    bool Find(const string symbol, CursorMark &mark) const {
        for(int i = 0; i < ArraySize(m_marks); i++)
            if(m_marks[i].symbol == symbol) {
                mark = m_marks[i];
                return true;
            }
        return false;
    }

    void CopyTo(CursorMarks &other) const {
        other.Clear();
        for(int i = 0; i < ArraySize(m_marks); i++)
            other.Set(m_marks[i]);
    }

    // Puts back what an earlier copy says. What is newer and was sent stays sent.
    void GoBackTo(const CursorMarks &earlier) {
        CursorMark mark;
        for(int i = 0; i < ArraySize(m_marks); i++)
            if(earlier.Find(m_marks[i].symbol, mark)) {
                mark.sent_msc = m_marks[i].sent_msc;
                m_marks[i] = mark;
            }
    }
};

#endif
