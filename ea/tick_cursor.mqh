// How far the ticks of one symbol were taken. OnTick skips ticks by design, so they are read from the terminal's own
// list with CopyTicks, from the cursor on.
//
// Only whole milliseconds are taken: the newest one may still get another tick, and the server recognises a resend only when
// the ticks of a millisecond travel together. The cursor is the last millisecond that was taken; what enters the list at or
// before it is found by reading again (symbol_feed.mqh).

#ifndef TICKPIPE_TICK_CURSOR_MQH
#define TICKPIPE_TICK_CURSOR_MQH

#include "recent_ticks.mqh"

// The newest millisecond counts as whole when nothing was added to it for so long.
#define SETTLE_MS 1000

// One millisecond never holds so many ticks.
#define MOST_READ 65536

// After a reconnection two readings must agree that are so far apart.
#define AGREE_MS 2000

class TickCursor {
private:
    string m_symbol;
    // Everything up to here was taken, the last millisecond with so many ticks.
    long m_msc;
    int m_taken;
    // The same after the ticks that Read() gave, until Advance() or the next Read().
    long m_next_msc;
    int m_next_taken;
    // The newest millisecond that was seen, how many ticks it had, and since when (GetTickCount64).
    long m_newest_msc;
    int m_newest_count;
    ulong m_newest_since;
    // While the list may still be filled from behind: the reading that the next must agree with, and its time.
    bool m_holding;
    long m_held_msc;
    int m_held_count;
    uint m_held_hash;
    ulong m_held_since;
    int m_error;
    bool m_has_more;
    bool m_is_waiting;

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

    // Whether a reading still has what the one before had, and nothing in between.
    bool Agrees(const MqlTick &ticks[], const int copied) {
        int count = 0;
        uint hash = 0;
        for(; count < copied && ticks[count].time_msc <= m_held_msc; count++)
            hash = MixedIn(hash, TickHash(ticks[count]));
        if(m_held_msc > 0 && count == m_held_count && hash == m_held_hash)
            return GetTickCount64() - m_held_since >= AGREE_MS;
        m_held_hash = 0;
        for(int i = 0; i < copied; i++)
            m_held_hash = MixedIn(m_held_hash, TickHash(ticks[i]));
        m_held_msc = ticks[copied - 1].time_msc;
        m_held_count = copied;
        m_held_since = GetTickCount64();
        return false;
    }

    // CopyTicks from the cursor on; 0 when its answer is not whole. While the terminal fetches history (up to 45 s) it answers
    // -1 or 0, or gives what it has with an error, which may have a hole in the middle and is not used.
    int Copy(MqlTick &ticks[], const int count) {
        ResetLastError();
        int copied = CopyTicks(m_symbol, ticks, COPY_TICKS_ALL, (ulong)m_msc, (uint)count);
        m_error = GetLastError();
        if(copied < 0 && m_error == 0)
            m_error = ERR_HISTORY_NOT_FOUND;
        return m_error == 0 ? copied : 0;
    }

public:
    TickCursor() { Begin("", 0, 0); }

    void Begin(const string symbol, const long msc, const int taken) {
        m_symbol = symbol;
        m_msc = msc;
        m_taken = taken;
        m_next_msc = msc;
        m_next_taken = taken;
        m_newest_msc = 0;
        m_newest_count = 0;
        m_newest_since = 0;
        m_holding = false;
        m_held_msc = 0;
        m_held_count = 0;
        m_held_hash = 0;
        m_held_since = 0;
        m_error = 0;
        m_has_more = false;
        m_is_waiting = false;
    }

    // Takes nothing until two readings agree: after a reconnection the terminal fills its list from both ends.
    void Hold() {
        m_holding = true;
        m_held_msc = 0;
    }

    long Msc() const { return m_msc; }
    int Taken() const { return m_taken; }
    long NextMsc() const { return m_next_msc; }
    int NextTaken() const { return m_next_taken; }
    // Why the last reading cannot be used; 0 when it can.
    int Error() const { return m_error; }
    // Whether the last reading left ticks behind for lack of room.
    bool HasMore() const { return m_has_more; }
    // Whether it left ticks behind that only had to prove whole, and have had the time for it.
    bool HasWaited() const {
        ulong now = GetTickCount64();
        return m_is_waiting && (m_holding ? now - m_held_since >= AGREE_MS : now - m_newest_since >= SETTLE_MS);
    }

    // The ticks that can be taken are ticks[first] to ticks[end - 1]. About `room` ticks are read. The answer is false
    // when there are none; the cursor stays until Advance().
    bool Read(MqlTick &ticks[], const int room, int &first, int &end) {
        first = 0;
        end = 0;
        m_has_more = false;
        m_is_waiting = false;
        m_next_msc = m_msc;
        m_next_taken = m_taken;
        // As wide as it takes to see the end of one millisecond.
        for(int wide = room; end == first; wide *= 2) {
            int copied = Copy(ticks, wide + m_taken);
            if(copied <= 0 || IsStopped())
                return false;
            first = 0;
            while(first < copied && ticks[first].time_msc <= m_msc)
                first++;
            if(m_holding && first < copied) {
                m_is_waiting = true;
                if(!Agrees(ticks, copied))
                    return false;
                m_holding = false;
            }
            end = copied;
            // Of a full reading the newest millisecond may be cut.
            bool full = copied >= wide + m_taken;
            m_has_more = full;
            m_is_waiting = false;
            if(first < copied && (full ? wide < MOST_READ : !Settled(ticks, copied))) {
                long newest = ticks[copied - 1].time_msc;
                while(end > first && ticks[end - 1].time_msc == newest)
                    end--;
                m_is_waiting = true;
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

    // As if Read() had given these ticks, all of them whole.
    void Propose(const MqlTick &ticks[], const int copied) {
        m_next_msc = ticks[copied - 1].time_msc;
        m_next_taken = 1;
    }

    // What Read() gave is safe.
    void Advance() {
        m_msc = m_next_msc;
        m_taken = m_next_taken;
    }
};

#endif
