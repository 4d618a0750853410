// M1 bars of one symbol: how far the closed ones were taken, and whether ticks are whole by them.

#ifndef TICKPIPE_BAR_CURSOR_MQH
#define TICKPIPE_BAR_CURSOR_MQH

#define MINUTE_S 60
// Most bars of one reading.
#define MOST_BARS 1500

// What the terminal's bars say of ticks that were read.
enum BarsSay {
    BARS_UNKNOWN,
    BARS_AGREE,
    // A minute has fewer ticks than its bar counts, or a bar and no tick.
    BARS_COUNT_MORE,
    BARS_WITHOUT_TICKS
};

// Whether ticks are all of a time, whole minutes of the broker's clock. A terminal that is loading its history may answer with
// fewer, or none, and no error; its bars come another way.
BarsSay WhatBarsSay(const string symbol, const long from_msc, const long to_msc, const MqlTick &ticks[], const int copied) {
    int minutes = (int)((to_msc - from_msc) / (MINUTE_S * 1000));
    MqlRates bars[];
    ResetLastError();
    // So many back from the end: the answer has bars also where the time itself has none, but for before the first of all.
    int found = CopyRates(symbol, PERIOD_M1, (datetime)(to_msc / 1000 - MINUTE_S), minutes, bars);
    if(found < 0 || GetLastError() != 0 || SeriesInfoInteger(symbol, PERIOD_M1, SERIES_SYNCHRONIZED) == 0)
        return BARS_UNKNOWN;
    long counts[];
    ArrayResize(counts, minutes);
    for(int i = 0; i < minutes; i++)
        counts[i] = 0;
    for(int i = 0; i < copied; i++)
        counts[(int)((ticks[i].time_msc - from_msc) / (MINUTE_S * 1000))]++;
    BarsSay say = BARS_AGREE;
    for(int i = 0; i < found; i++) {
        long after_s = (long)bars[i].time - from_msc / 1000;
        if(after_s < 0 || after_s >= (long)minutes * MINUTE_S)
            continue;
        long count = counts[(int)(after_s / MINUTE_S)];
        if(count == 0)
            return BARS_WITHOUT_TICKS;
        if(count < bars[i].tick_volume)
            say = BARS_COUNT_MORE;
    }
    return say;
}

class BarCursor {
private:
    // Opening of the newest bar that was taken, and of the minute in which bars were last asked for (seconds).
    long m_time;
    long m_asked;

    // Leaves out the bars that were taken, which are the first; how many are left.
    int WithoutTaken(MqlRates &bars[], const int copied) const {
        int taken = 0;
        while(taken < copied && (long)bars[taken].time <= m_time)
            taken++;
        for(int i = taken; i < copied && taken > 0; i++)
            bars[i - taken] = bars[i];
        return copied - taken;
    }

public:
    BarCursor() { Begin(0); }

    void Begin(const long time) {
        m_time = time;
        m_asked = 0;
    }

    long Time() const { return m_time; }

    // Reads the bars that closed since the last time; how many. A bar is closed when the terminal has begun the next, so the
    // newest waits. The cursor may move to `next` once they are stored. An answer counts when the terminal says that its
    // bars are complete, and without an error.
    int Read(const string symbol, const long quote_msc, MqlRates &bars[], long &next) {
        long quoted = quote_msc / 1000 / MINUTE_S * MINUTE_S;
        next = m_time;
        if(quoted == m_asked || quoted < m_time + 2 * MINUTE_S)
            return 0;
        long to = MathMin(quoted, m_time + (long)MOST_BARS * MINUTE_S);
        ResetLastError();
        // Asking for bars is what makes the terminal fetch them. So many up to a time: where a whole range has none, as over a
        // weekend, asking for the range may be answered by an error.
        int copied = CopyRates(symbol, PERIOD_M1, (datetime)to, (int)((to - m_time) / MINUTE_S), bars);
        if(copied < 0 || GetLastError() != 0 || SeriesInfoInteger(symbol, PERIOD_M1, SERIES_SYNCHRONIZED) == 0)
            return 0;
        copied = WithoutTaken(bars, copied);
        if(to < quoted) {
            next = to;
            return copied;
        }
        m_asked = quoted;
        copied = MathMax(copied - 1, 0);
        if(copied > 0)
            next = (long)bars[copied - 1].time;
        return copied;
    }

    // What Read() gave is stored up to here.
    void Advance(const long time) { m_time = time; }

    // Bars from this one on are read again: they could not be stored, or their ticks changed.
    void ReadAgain(const long time) {
        m_time = MathMin(m_time, time - MINUTE_S);
        m_asked = 0;
    }
};

#endif
