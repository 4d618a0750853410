// When which time of a symbol's list is read again: every minute three times, and the hour that a clock shows twice.

#ifndef TICKPIPE_CHECK_SCHEDULE_MQH
#define TICKPIPE_CHECK_SCHEDULE_MQH

#include "tick_cursor.mqh"

#define MINUTE_MS 60000
// Every minute is read again when it is so old, and so much at a time (ms).
#define CHECKS 3
const long CHECK_AGE_MS[CHECKS] = {60000, 600000, 3600000};
const long CHECK_STEP_MS[CHECKS] = {60000, 120000, 600000};
#define CHECK_MOST_MS 600000

// When the quotes of a symbol go back by so much, the broker's clock did (ms).
#define CLOCK_BACK_MS 1500000
// Clocks are put back to a multiple of that (ms).
#define CLOCK_STEP_MS 900000
// In the hour that is shown twice, so much is read again with what is new (ms).
#define REPEAT_AGAIN_MS 120000

class CheckSchedule {
private:
    // Up to where each check has read again.
    long m_checked_msc[CHECKS];
    // The time that the clock shows twice, and up to where its second showing was read; 0 when there is none.
    long m_repeat_from_msc;
    long m_repeat_to_msc;
    long m_repeat_read_msc;

public:
    CheckSchedule() { Begin(0); }

    void Begin(const long msc) {
        for(int i = 0; i < CHECKS; i++)
            m_checked_msc[i] = msc;
        m_repeat_from_msc = 0;
        m_repeat_to_msc = 0;
        m_repeat_read_msc = 0;
    }

    // What is before a time is not read again: it cannot be compared any more, or was sent by another clock.
    void NotBefore(const long msc) {
        for(int i = 0; i < CHECKS; i++)
            m_checked_msc[i] = MathMax(m_checked_msc[i], msc);
    }

    // Everything from a time on is read again soon.
    void Doubt(const long since_msc) { m_checked_msc[0] = since_msc; }

    // The clock went back to `quote_msc` from `before_msc`.
    void BeginRepeat(const long quote_msc, const long before_msc) {
        m_repeat_from_msc = quote_msc / CLOCK_STEP_MS * CLOCK_STEP_MS;
        m_repeat_to_msc = before_msc / CLOCK_STEP_MS * CLOCK_STEP_MS + CLOCK_STEP_MS - 1;
        m_repeat_read_msc = m_repeat_from_msc;
        for(int i = 0; i < CHECKS; i++)
            m_checked_msc[i] = m_repeat_from_msc;
    }

    // Whether the clock shows a time for the second time, or not all of that was read.
    bool IsRepeating() const { return m_repeat_read_msc <= m_repeat_to_msc && m_repeat_to_msc > 0; }
    long RepeatFrom() const { return m_repeat_from_msc; }
    long RepeatTo() const { return m_repeat_to_msc; }
    // Whether the clock showed this time twice: not all of its ticks belong together.
    bool IsTwice(const long msc) const { return msc >= m_repeat_from_msc && msc <= m_repeat_to_msc; }

    // Which time is to be read again, and by which check; false when none is. What is behind the cursor's minute was never
    // read at all.
    bool Next(const long now_msc, const long cursor_msc, int &check, long &from_msc, long &end_msc) const {
        if(IsRepeating()) {
            check = CHECKS;
            from_msc = MathMax(m_repeat_from_msc, m_repeat_read_msc - REPEAT_AGAIN_MS);
            end_msc = MathMin(now_msc - SETTLE_MS, m_repeat_to_msc + 1);
            return end_msc > m_repeat_read_msc;
        }
        long reach_msc = cursor_msc / MINUTE_MS * MINUTE_MS + MINUTE_MS;
        for(check = 0; check < CHECKS; check++) {
            from_msc = m_checked_msc[check];
            long old_msc = (now_msc - CHECK_AGE_MS[check]) / MINUTE_MS * MINUTE_MS;
            end_msc = MathMin(MathMin(old_msc, reach_msc), from_msc / MINUTE_MS * MINUTE_MS + CHECK_MOST_MS);
            if(old_msc - from_msc >= CHECK_STEP_MS[check] && end_msc > from_msc)
                return true;
        }
        return false;
    }

    // A check has read again up to here.
    void Done(const int check, const long end_msc) {
        if(check == CHECKS)
            m_repeat_read_msc = end_msc;
        else
            m_checked_msc[check] = end_msc;
    }

    // What is before was read by every check.
    long DoneMsc() const {
        long done_msc = m_checked_msc[0];
        for(int i = 1; i < CHECKS; i++)
            done_msc = MathMin(done_msc, m_checked_msc[i]);
        return done_msc;
    }
};

#endif
