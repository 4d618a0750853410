// The times of which a server lacks ticks, as its answers name them (UTC, ms):
// "wanted":[{"symbol":"EURUSD","from":1760926800000,"to":1760930400000}]

#ifndef TICKPIPE_WANTED_RANGES_MQH
#define TICKPIPE_WANTED_RANGES_MQH

// What a server may ask for at a time: so many ranges, each of whole minutes and no longer than an hour (ms).
#define MOST_WANTED 8
#define WANTED_STEP_MS 60000
#define LONGEST_WANTED_MS 3600000
// A range that was reported is not read again for so long: the server may not have the report yet (ms). So many are
// remembered.
#define REPORTED_MS 3600000
#define MOST_REPORTED 256

struct WantedRange {
    string symbol;
    // UTC (ms); the end is excluded.
    long from_msc;
    long to_msc;
    // What the first reading gave: the number of ticks, -1 before it, and the sum of their hashes.
    int count;
    ulong sum;
    // Readings that gave nothing whole, and when the next may be tried (GetTickCount64).
    int failures;
    ulong not_before;
    // When the range was wanted first (GetTickCount64).
    ulong since;
};

bool IsSameRange(const WantedRange &a, const WantedRange &b) {
    return a.from_msc == b.from_msc && a.to_msc == b.to_msc && a.symbol == b.symbol;
}

void ClearRange(WantedRange &range) {
    range.symbol = "";
    range.from_msc = 0;
    range.to_msc = 0;
    range.count = -1;
    range.sum = 0;
    range.failures = 0;
    range.not_before = 0;
    range.since = GetTickCount64();
}

bool IsUsableRange(const WantedRange &range) {
    return range.symbol != "" && range.from_msc > 0 && range.to_msc > range.from_msc &&
           range.to_msc - range.from_msc <= LONGEST_WANTED_MS && range.from_msc % WANTED_STEP_MS == 0 &&
           range.to_msc % WANTED_STEP_MS == 0;
}

// The text from `at` to the quote that ends it; `at` is then behind that.
string QuotedText(const string json, int &at) {
    string text = "";
    for(; at < StringLen(json) && StringGetCharacter(json, at) != '\"'; at++) {
        if(StringGetCharacter(json, at) == '\\')
            at++;
        text += StringSubstr(json, at, 1);
    }
    at++;
    return text;
}

// The digits from `at` on, as a number; `at` is then behind them.
long NumberAt(const string json, int &at) {
    int begin = at;
    while(at < StringLen(json) && StringGetCharacter(json, at) >= '0' && StringGetCharacter(json, at) <= '9')
        at++;
    return at - begin > 18 ? 0 : StringToInteger(StringSubstr(json, begin, at - begin));
}

// The usable ranges that an answer names.
void ReadWanted(const string answer, WantedRange &ranges[]) {
    string begin = "\"wanted\":";
    int count = 0;
    string name = "";
    WantedRange range;
    ClearRange(range);
    ArrayResize(ranges, 0);
    int found = StringFind(answer, begin);
    int at = found < 0 ? StringLen(answer) : found + StringLen(begin);
    while(at < StringLen(answer) && count < MOST_WANTED) {
        ushort c = StringGetCharacter(answer, at);
        if(c >= '0' && c <= '9') {
            long number = NumberAt(answer, at);
            if(name == "from")
                range.from_msc = number;
            else if(name == "to")
                range.to_msc = number;
            continue;
        }
        at++;
        if(c == ']')
            return;
        if(c == '{')
            ClearRange(range);
        else if(c == '}' && IsUsableRange(range)) {
            ArrayResize(ranges, count + 1);
            ranges[count] = range;
            count++;
        }
        if(c == '{' || c == '}' || c == ',')
            name = "";
        if(c != '\"')
            continue;
        string text = QuotedText(answer, at);
        if(name == "symbol")
            range.symbol = text;
        else if(name == "")
            name = text;
    }
}

class WantedRanges {
private:
    // Newest first, as the server named them.
    WantedRange m_ranges[];
    WantedRange m_reported[];
    ulong m_reported_at[];

    bool WasReported(const WantedRange &range) const {
        for(int i = ArraySize(m_reported) - 1; i >= 0; i--)
            if(IsSameRange(m_reported[i], range) && GetTickCount64() - m_reported_at[i] < REPORTED_MS)
                return true;
        return false;
    }

public:
    WantedRanges() { Begin(); }

    void Begin() {
        ArrayResize(m_ranges, 0);
        ArrayResize(m_reported, 0);
        ArrayResize(m_reported_at, 0);
    }

    int Count() const { return ArraySize(m_ranges); }
    // By value: what changes of a range is put back by Note().
    WantedRange At(const int i) const { return m_ranges[i]; }
    void Note(const int i, const WantedRange &range) { m_ranges[i] = range; }

    // What is wanted now; of a range that was wanted before it stays known how far it is.
    void Take(const string answer) {
        WantedRange named[];
        ReadWanted(answer, named);
        int count = 0;
        for(int i = 0; i < ArraySize(named); i++) {
            if(WasReported(named[i]))
                continue;
            for(int k = 0; k < ArraySize(m_ranges); k++)
                if(IsSameRange(m_ranges[k], named[i]))
                    named[i] = m_ranges[k];
            named[count] = named[i];
            count++;
        }
        ArrayResize(m_ranges, count);
        for(int i = 0; i < count; i++)
            m_ranges[i] = named[i];
    }

    // A report of this range is on its way.
    void Reported(const WantedRange &range) {
        int left = 0;
        for(int i = 0; i < ArraySize(m_ranges); i++)
            if(!IsSameRange(m_ranges[i], range)) {
                m_ranges[left] = m_ranges[i];
                left++;
            }
        ArrayResize(m_ranges, left);
        int count = ArraySize(m_reported);
        if(count == MOST_REPORTED) {
            count--;
            for(int i = 0; i < count; i++) {
                m_reported[i] = m_reported[i + 1];
                m_reported_at[i] = m_reported_at[i + 1];
            }
        }
        ArrayResize(m_reported, count + 1, MOST_REPORTED);
        ArrayResize(m_reported_at, count + 1, MOST_REPORTED);
        m_reported[count] = range;
        m_reported_at[count] = GetTickCount64();
    }
};

#endif
