// How far the broker's clock is ahead of UTC, which ticks go by which offset when it changes, and what it was at a time that
// is past.

#ifndef TICKPIPE_BROKER_CLOCK_MQH
#define TICKPIPE_BROKER_CLOCK_MQH

#include "post_body.mqh"
#include "settings.mqh"

// The broker's clock is a multiple of that away from UTC (seconds), and never further than 18 hours.
#define OFFSET_STEP_S 900
#define MOST_OFFSET_S 64800
// So long after the broker's clock changed there may be ticks from before (ms).
#define FORMER_MS 60000
// So many changes of the clock are remembered.
#define MOST_SPANS 64
// The hour that is shown twice is no further from the change (seconds).
#define NEAR_CHANGE_S 21600
#define DAY_S 86400

// Offset of the broker's clock from UTC (seconds), by the trade server's time; false while the terminal does not know it.
bool MeasuredOffset(int &offset_s) {
    double apart_s = (double)((long)TimeTradeServer() - (long)TimeGMT());
    offset_s = (int)MathRound(apart_s / OFFSET_STEP_S) * OFFSET_STEP_S;
    return MathAbs(offset_s) <= MOST_OFFSET_S;
}

// The offset that requests say; false while the terminal does not know the broker's time.
bool UtcOffset(const CollectorSettings &settings, int &offset_s) {
    offset_s = NO_OFFSET;
    if(settings.clock == CLOCK_SERVER)
        return true;
    if(settings.clock == CLOCK_FIXED) {
        offset_s = settings.fixed_offset_s;
        return true;
    }
    return MeasuredOffset(offset_s);
}

class BrokerClock {
private:
    // The offset from UTC, the one before, and since when it is another (GetTickCount64).
    int m_offset_s;
    int m_former_offset_s;
    ulong m_offset_since;

public:
    BrokerClock() { Begin(); }

    void Begin() {
        m_offset_s = NO_OFFSET;
        m_former_offset_s = NO_OFFSET;
        m_offset_since = 0;
    }

    // Takes note of the offset of now; whether it is another one than before.
    bool Note(const int offset_s) {
        if(offset_s == m_offset_s)
            return false;
        m_former_offset_s = m_offset_s;
        m_offset_s = offset_s;
        m_offset_since = GetTickCount64();
        return true;
    }

    // The offset at a tick's time: one that was not read yet when the broker's clock changed has the former.
    int OffsetAt(const long msc) const {
        if(m_former_offset_s == NO_OFFSET || GetTickCount64() - m_offset_since > FORMER_MS)
            return m_offset_s;
        long now_msc = (long)TimeGMT() * 1000;
        long by_former = now_msc - (msc - (long)m_former_offset_s * 1000);
        long by_offset = now_msc - (msc - (long)m_offset_s * 1000);
        return MathAbs(by_former) < MathAbs(by_offset) ? m_former_offset_s : m_offset_s;
    }
};

// Whether clocks are changed on the day of a time, by the rules of Europe, North America or Australia.
bool IsChangeDay(const long time_s) {
    MqlDateTime day;
    TimeToStruct((datetime)time_s, day);
    if(day.day_of_week != 0)
        return false;
    if(day.mon == 3)
        return day.day >= 25 || (day.day >= 8 && day.day <= 14);
    if(day.mon == 10)
        return day.day >= 25 || day.day <= 7;
    return (day.mon == 4 || day.mon == 11) && day.day <= 7;
}

// A time in which the clock was seen with one offset (UTC, seconds).
struct ClockSpan {
    int offset_s;
    long from_s;
    long to_s;
};

// Which offset the clock had. Before this program looked, it is taken to have had the same since the last day on which
// clocks are changed; beyond that it is not known, for MQL5 has no list of time zones.
class ClockHistory {
private:
    ClockSpan m_spans[];

    // Whether the clock, put back between two spans, showed a part of these times twice.
    bool WasShownTwice(const long from_s, const long to_s) const {
        for(int i = 1; i < ArraySize(m_spans); i++)
            if(from_s <= m_spans[i].from_s + m_spans[i - 1].offset_s && to_s >= m_spans[i - 1].to_s + m_spans[i].offset_s &&
               m_spans[i].offset_s < m_spans[i - 1].offset_s)
                return true;
        return false;
    }

    bool MayHaveChanged(const long from_s, const long to_s) const {
        for(long day = from_s; day < to_s; day += DAY_S)
            if(IsChangeDay(day))
                return true;
        return IsChangeDay(to_s);
    }

public:
    ClockHistory() { Begin(); }

    void Begin() { ArrayResize(m_spans, 0); }

    // The clock has this offset now.
    void Note(const int offset_s) {
        long now_s = (long)TimeGMT();
        int count = ArraySize(m_spans);
        if(count > 0 && m_spans[count - 1].offset_s == offset_s) {
            m_spans[count - 1].to_s = MathMax(m_spans[count - 1].to_s, now_s);
            return;
        }
        if(count == MOST_SPANS) {
            count--;
            for(int i = 0; i < count; i++)
                m_spans[i] = m_spans[i + 1];
        }
        ArrayResize(m_spans, count + 1, MOST_SPANS);
        m_spans[count].offset_s = offset_s;
        m_spans[count].from_s = now_s;
        m_spans[count].to_s = now_s;
    }

    // The offset that the clock had all the time from one moment to another (UTC, ms); false where that is not known, or
    // where it showed a part of that time twice.
    bool OffsetOver(const long from_msc, const long to_msc, int &offset_s) const {
        long from_s = from_msc / 1000;
        long to_s = to_msc / 1000;
        for(int i = 0; i < ArraySize(m_spans); i++) {
            if(to_s > m_spans[i].to_s)
                continue;
            offset_s = m_spans[i].offset_s;
            bool is_known = from_s >= m_spans[i].from_s ||
                            (i == 0 && !MayHaveChanged(from_s - NEAR_CHANGE_S, m_spans[i].from_s));
            return is_known && !WasShownTwice(from_s + offset_s, to_s + offset_s);
        }
        return false;
    }
};

#endif
