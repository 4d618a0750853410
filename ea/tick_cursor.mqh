// How far the ticks of one symbol were taken. OnTick skips ticks by design, so they are read from the terminal's own
// list with CopyTicks, from the cursor on.
//
// Only whole milliseconds are taken: the newest one may still get brothers, and the server recognises a resend only when
// the ticks of a millisecond travel together. The cursor is a millisecond and how many of its ticks were taken; CopyTicks
// answers with that millisecond again, and those are skipped.
//
// In autumn a broker's clock shows an hour twice. In the second pass CopyTicks by time would answer with the first as well,
// so the newest ticks are read, and those taken that came after the clock went back.

#ifndef TICKPIPE_TICK_CURSOR_MQH
#define TICKPIPE_TICK_CURSOR_MQH

// The newest millisecond counts as whole when nothing was added to it for so long.
#define SETTLE_MS 1000

// One millisecond never holds so many ticks.
#define MOST_READ 65536

// From one tick to the next only a clock that was put back goes back so far.
#define WENT_BACK_MS 60000

class TickCursor {
private:
    string m_symbol;
    // Taken: everything before m_msc, and the first m_taken ticks of m_msc.
    long m_msc;
    int m_taken;
    // In the second pass of an hour: the tick before the clock went back, until the time has passed it. Else 0.
    long m_until;
    // The same after the ticks that Read() gave, until Advance() or the next Read().
    long m_next_msc;
    int m_next_taken;
    // The newest millisecond that was seen, how many ticks it had, and since when (GetTickCount64).
    long m_newest_msc;
    int m_newest_count;
    ulong m_newest_since;
    bool m_waiting;
    bool m_has_more;

    bool Settled(const MqlTick &ticks[], const int copied) {
        long newest = ticks[copied - 1].time_msc;
        int count = 0;
        while(count < copied && ticks[copied - 1 - count].time_msc == newest)
            count++;
        if(newest != m_newest_msc || count != m_newest_count) {
            m_newest_msc = newest;
            m_newest_count = count;
            m_newest_since = GetTickCount64();
            return false;
        }
        return GetTickCount64() - m_newest_since >= SETTLE_MS;
    }

    // CopyTicks from a time on, or with 0 of the newest ticks. While the terminal fetches history (up to 45 s at first) it answers -1 or 0, or says
    // ERR_HISTORY_TIMEOUT and gives what it has, which may have a hole in the middle and is not used.
    int Copy(MqlTick &ticks[], const long from_msc, const int count) {
        ResetLastError();
        int copied = CopyTicks(m_symbol, ticks, COPY_TICKS_ALL, (ulong)from_msc, (uint)count);
        m_waiting = copied < 0 || GetLastError() == ERR_HISTORY_TIMEOUT;
        return m_waiting ? -1 : copied;
    }

    // The first tick after the clock went back from `before_msc`; -1 when it is not among these.
    int WentBackAt(const MqlTick &ticks[], const int copied, const long before_msc) const {
        for(int i = copied - 1; i > 0; i--)
            if(ticks[i - 1].time_msc == before_msc && ticks[i].time_msc < before_msc - WENT_BACK_MS)
                return i;
        return -1;
    }

    // The newest ticks, as many as it takes to have all from `after_msc` on; `first` is the one after the clock went back
    // from `before_msc`, or -1.
    int CopyNewest(MqlTick &ticks[], const long before_msc, const long after_msc, int &first) {
        int copied = 0;
        first = -1;
        for(int wide = 1024; wide <= MOST_READ; wide *= 2) {
            copied = Copy(ticks, 0, wide);
            if(copied <= 0)
                break;
            first = WentBackAt(ticks, copied, before_msc);
            if(first >= 0 || copied < wide || ticks[0].time_msc < after_msc)
                break;
        }
        return copied;
    }

    // Whether the clock shows an hour again. It does when it is behind the cursor, and a tick that came later is as well.
    bool InSecondPass(MqlTick &ticks[], const long broker_msc) {
        if(m_until > 0 && m_msc > m_until)
            m_until = 0;
        long behind_msc = m_msc - WENT_BACK_MS;
        if(m_until > 0 || m_taken == 0 || broker_msc >= behind_msc)
            return m_until > 0;
        if(Copy(ticks, 0, 1) != 1 || ticks[0].time_msc >= behind_msc)
            return false;
        int first = -1;
        if(CopyNewest(ticks, m_msc, 0, first) <= 0 || first < 0)
            return false;
        m_until = m_msc;
        m_msc = ticks[first].time_msc;
        m_taken = 0;
        return true;
    }

    // As Read() does, in the second pass.
    void ReadSecondPass(MqlTick &ticks[], const int room, int &first, int &end) {
        int copied = CopyNewest(ticks, m_until, m_msc, first);
        first = first < 0 ? 0 : first;
        while(first < copied && ticks[first].time_msc < m_msc)
            first++;
        for(int i = 0; i < m_taken && first < copied && ticks[first].time_msc == m_msc; i++)
            first++;
        end = first;
        while(end < copied && (end - first < room || ticks[end].time_msc == ticks[end - 1].time_msc))
            end++;
        m_has_more = end < copied;
        if(end > first && !m_has_more && !Settled(ticks, copied)) {
            long newest = ticks[copied - 1].time_msc;
            while(end > first && ticks[end - 1].time_msc == newest)
                end--;
        }
    }

public:
    TickCursor() : m_symbol(""), m_msc(0), m_taken(0), m_until(0), m_next_msc(0), m_next_taken(0), m_newest_msc(0),
                   m_newest_count(0), m_newest_since(0), m_waiting(false), m_has_more(false) {}

    void Begin(const string symbol, const long msc, const int taken, const long until) {
        m_symbol = symbol;
        m_msc = msc;
        m_taken = taken;
        m_until = until;
        m_next_msc = msc;
        m_next_taken = taken;
    }

    string Name() const { return m_symbol; }
    long Msc() const { return m_msc; }
    int Taken() const { return m_taken; }
    long Until() const { return m_until; }
    long NextMsc() const { return m_next_msc; }
    int NextTaken() const { return m_next_taken; }
    // Whether the terminal still fetches this symbol's ticks.
    bool Waiting() const { return m_waiting; }
    // Whether the last reading left ticks behind for lack of room.
    bool HasMore() const { return m_has_more; }

    // The ticks that can be taken are ticks[first] to ticks[end - 1]. About `room` ticks are read; `broker_msc` is what the
    // broker's clock shows. The answer is false when there are none; the cursor stays until Advance().
    bool Read(MqlTick &ticks[], const int room, const long broker_msc, int &first, int &end) {
        first = 0;
        end = 0;
        m_has_more = false;
        bool second_pass = InSecondPass(ticks, broker_msc);
        m_next_msc = m_msc;
        m_next_taken = m_taken;
        if(second_pass) {
            ReadSecondPass(ticks, room, first, end);
            if(end == first)
                return false;
        }
        // As wide as it takes to see the end of one millisecond.
        for(int wide = room; end == first; wide *= 2) {
            int copied = Copy(ticks, m_msc, wide + m_taken);
            if(copied <= 0)
                return false;
            first = 0;
            while(first < copied && first < m_taken && ticks[first].time_msc == m_msc)
                first++;
            end = copied;
            // Of a full reading the newest millisecond may be cut.
            bool full = copied >= wide + m_taken;
            m_has_more = full;
            if(full ? wide < MOST_READ : !Settled(ticks, copied)) {
                long newest = ticks[copied - 1].time_msc;
                while(end > first && ticks[end - 1].time_msc == newest)
                    end--;
            }
            if(end == first && !full)
                return false;
        }
        m_next_msc = ticks[end - 1].time_msc;
        m_next_taken = 0;
        for(int i = end - 1; i >= 0 && ticks[i].time_msc == m_next_msc; i--)
            m_next_taken++;
        return true;
    }

    // What Read() gave is safe.
    void Advance() {
        m_msc = m_next_msc;
        m_taken = m_next_taken;
    }
};

#endif
