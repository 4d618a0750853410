// How far the closed M1 bars of one symbol were taken.

#ifndef TICKPIPE_BAR_CURSOR_MQH
#define TICKPIPE_BAR_CURSOR_MQH

#define MINUTE_S 60
// Most bars of one reading.
#define MOST_BARS 1500

class BarCursor {
private:
    // Opening of the newest bar that was taken, and of the minute in which bars were last asked for (seconds).
    long m_time;
    long m_asked;

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
        if(SeriesInfoInteger(symbol, PERIOD_M1, SERIES_SYNCHRONIZED) == 0)
            return 0;
        long to = MathMin(quoted, m_time + (long)MOST_BARS * MINUTE_S);
        ResetLastError();
        int copied = CopyRates(symbol, PERIOD_M1, (datetime)(m_time + MINUTE_S), (datetime)to, bars);
        if(copied < 0 || GetLastError() != 0)
            return 0;
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
