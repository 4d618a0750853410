// How far the ticks of one symbol were taken. OnTick skips ticks by design, so they are read from the terminal's own
// list with CopyTicks, from the cursor on.
//
// Only whole milliseconds are taken: the newest one may still get brothers, and the server recognises a resend only when
// the ticks of a millisecond travel together. The cursor is a millisecond and how many of its ticks were taken; CopyTicks
// answers with that millisecond again, and those are skipped.

#ifndef TICKPIPE_TICK_CURSOR_MQH
#define TICKPIPE_TICK_CURSOR_MQH

// The newest millisecond counts as whole when nothing was added to it for so long.
#define SETTLE_MS 1000

// One millisecond never holds so many ticks.
#define MOST_READ 65536

class TickCursor {
private:
    string m_symbol;
    // Taken: everything before m_msc, and the first m_taken ticks of m_msc.
    long m_msc;
    int m_taken;
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

    // CopyTicks from the cursor on. While the terminal fetches history (up to 45 s at first) it answers -1 or 0, or says
    // ERR_HISTORY_TIMEOUT and gives what it has, which may have a hole in the middle and is not used.
    int Copy(MqlTick &ticks[], const int count) {
        ResetLastError();
        int copied = CopyTicks(m_symbol, ticks, COPY_TICKS_ALL, (ulong)m_msc, (uint)count);
        m_waiting = copied < 0 || GetLastError() == ERR_HISTORY_TIMEOUT;
        return m_waiting ? -1 : copied;
    }

public:
    TickCursor() : m_symbol(""), m_msc(0), m_taken(0), m_next_msc(0), m_next_taken(0), m_newest_msc(0),
                   m_newest_count(0), m_newest_since(0), m_waiting(false), m_has_more(false) {}

    void Begin(const string symbol, const long msc, const int taken) {
        m_symbol = symbol;
        m_msc = msc;
        m_taken = taken;
        m_next_msc = msc;
        m_next_taken = taken;
    }

    string Name() const { return m_symbol; }
    long Msc() const { return m_msc; }
    int Taken() const { return m_taken; }
    long NextMsc() const { return m_next_msc; }
    int NextTaken() const { return m_next_taken; }
    // Whether the terminal still fetches this symbol's ticks.
    bool Waiting() const { return m_waiting; }
    // Whether the last reading left ticks behind for lack of room.
    bool HasMore() const { return m_has_more; }

    // The ticks that can be taken are ticks[first] to ticks[end - 1]. About `room` ticks are read. The answer is false
    // when there are none; the cursor stays until Advance().
    bool Read(MqlTick &ticks[], const int room, int &first, int &end) {
        first = 0;
        end = 0;
        m_has_more = false;
        m_next_msc = m_msc;
        m_next_taken = m_taken;
        // As wide as it takes to see the end of one millisecond.
        for(int wide = room; end == first; wide *= 2) {
            int copied = Copy(ticks, wide + m_taken);
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
