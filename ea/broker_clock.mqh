// How far the broker's clock is ahead of UTC, and which ticks go by which offset when it changes.

#ifndef TICKPIPE_BROKER_CLOCK_MQH
#define TICKPIPE_BROKER_CLOCK_MQH

#include "post_body.mqh"
#include "settings.mqh"

// The broker's clock is a multiple of that away from UTC (seconds), and never further than 18 hours.
#define OFFSET_STEP_S 900
#define MOST_OFFSET_S 64800
// So long after the broker's clock changed there may be ticks from before (ms).
#define FORMER_MS 60000

// Offset of the broker's clock from UTC (seconds); false while the terminal does not know the broker's time.
bool UtcOffset(const CollectorSettings &settings, int &offset_s) {
    offset_s = NO_OFFSET;
    if(settings.clock == CLOCK_SERVER)
        return true;
    if(settings.clock == CLOCK_FIXED) {
        offset_s = settings.fixed_offset_s;
        return true;
    }
    double apart_s = (double)((long)TimeTradeServer() - (long)TimeGMT());
    offset_s = (int)MathRound(apart_s / OFFSET_STEP_S) * OFFSET_STEP_S;
    return MathAbs(offset_s) <= MOST_OFFSET_S;
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

#endif
