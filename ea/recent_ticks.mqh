// The ticks of one symbol that were taken in the last hours, as time and hash: the terminal's list is not append-only, and a
// later reading of it is compared with these.
//
// Their number and the sum of their hashes go into the ring with each record. After a restart one reading of the same time
// shows whether anything changed while nobody looked.

#ifndef TICKPIPE_RECENT_TICKS_MQH
#define TICKPIPE_RECENT_TICKS_MQH

// Beyond that nothing is remembered, whether it was read again or not (ms).
#define MOST_RECENT_MS 10800000

// The bits of a price.
union NumberBits {
    double number;
    ulong bits;
};

uint MixedIn(const uint before, const ulong value) {
    uint sum = (before ^ (uint)(value & 0xFFFFFFFF)) * (uint)16777619;
    sum = (sum ^ (uint)(value >> 32)) * (uint)16777619;
    return sum ^ (sum >> 15);
}

uint MixedInNumber(const uint before, const double value) {
    NumberBits bits;
    bits.number = value;
    return MixedIn(before, bits.bits);
}

// Of everything but the flags: those of the history differ from those that were seen live.
uint TickHash(const MqlTick &tick) {
    uint hash = MixedIn((uint)2166136261, (ulong)tick.time_msc);
    hash = MixedInNumber(MixedInNumber(MixedInNumber(hash, tick.bid), tick.ask), tick.last);
    return MixedInNumber(hash, tick.volume_real > 0.0 ? tick.volume_real : (double)tick.volume);
}

// What the ticks from one time on add up to.
struct TickTotals {
    // The first millisecond that they cover.
    long since_msc;
    long count;
    ulong sum;
    // The last millisecond with a tick before them; 0 when there was none.
    long before_msc;
};

class RecentTicks {
private:
    TickTotals m_totals;
    // By time; entries before m_first are gone.
    long m_times[];
    uint m_hashes[];
    int m_first;
    long m_next_times[];
    uint m_next_hashes[];
    // Whether the entries are there, and not only their totals from before a restart.
    bool m_loaded;

    // The first entry that is not before a time.
    int Find(const long msc) const {
        int low = m_first;
        int high = ArraySize(m_times);
        while(low < high) {
            int middle = (low + high) / 2;
            if(m_times[middle] < msc)
                low = middle + 1;
            else
                high = middle;
        }
        return low;
    }

    void Clear(const long since_msc) {
        m_totals.since_msc = since_msc;
        m_totals.count = 0;
        m_totals.sum = 0;
        m_first = 0;
        ArrayResize(m_times, 0, 4096);
        ArrayResize(m_hashes, 0, 4096);
        ArrayResize(m_next_times, 0);
        m_loaded = true;
    }

    void Add(const long msc, const uint hash) {
        int count = ArraySize(m_times);
        ArrayResize(m_times, count + 1, 4096);
        ArrayResize(m_hashes, count + 1, 4096);
        int at = count;
        for(; at > m_first && m_times[at - 1] > msc; at--) {
            m_times[at] = m_times[at - 1];
            m_hashes[at] = m_hashes[at - 1];
        }
        m_times[at] = msc;
        m_hashes[at] = hash;
        m_totals.count++;
        m_totals.sum += hash;
    }

    // How many of the ticks from `begin` on equal tick `i`, which they precede.
    int Earlier(const MqlTick &ticks[], const int begin, const int i) const {
        uint hash = TickHash(ticks[i]);
        int found = 0;
        for(int k = i - 1; k >= begin && ticks[k].time_msc == ticks[i].time_msc; k--)
            if(TickHash(ticks[k]) == hash)
                found++;
        return found;
    }

    // Whether the entries from `at` on, all of one millisecond, hold this hash more often than `used` times.
    bool Holds(const int at, const long msc, const uint hash, const int used) const {
        int found = 0;
        for(int i = at; i < ArraySize(m_times) && m_times[i] == msc; i++)
            if(m_hashes[i] == hash)
                found++;
        return found > used;
    }

public:
    RecentTicks() {
        Clear(0);
        m_totals.before_msc = 0;
    }

    // Nothing is known but the totals of a run before.
    void Begin(const TickTotals &totals) {
        Clear(totals.since_msc);
        m_totals = totals;
        m_loaded = totals.count == 0;
    }

    bool IsLoaded() const { return m_loaded; }
    // How many ticks there are from one time to another.
    long Count(const long from_msc, const long to_msc) const { return Find(to_msc + 1) - Find(from_msc); }
    int Size() const { return ArraySize(m_times) - m_first; }
    TickTotals Totals() const { return m_totals; }
    // The first millisecond that they cover.
    long SinceMsc() const { return m_totals.since_msc; }

    // Takes over what a reading of the time that the totals cover begins with, if it adds up to them. More ticks than that
    // are new. Else the answer is false, nothing is known, and every tick of that time is new.
    bool Load(const MqlTick &ticks[], const int copied) {
        TickTotals before = m_totals;
        Adopt(ticks, (int)MathMin((long)copied, before.count));
        if(m_totals.count == before.count && m_totals.sum == before.sum)
            return true;
        Clear(before.since_msc);
        return false;
    }

    // Takes over a reading, whatever it adds up to.
    void Adopt(const MqlTick &ticks[], const int copied) {
        Clear(m_totals.since_msc);
        for(int i = 0; i < copied; i++)
            Add(ticks[i].time_msc, TickHash(ticks[i]));
    }

    // Covers an earlier time as well, of which these ticks are known.
    void ReachBack(const long since_msc, const MqlTick &ticks[], const int copied) {
        m_totals.since_msc = since_msc;
        m_totals.before_msc = 0;
        for(int i = 0; i < copied; i++)
            Add(ticks[i].time_msc, TickHash(ticks[i]));
    }

    // Everything may be missing on the server.
    void Forget() { Clear(m_totals.since_msc); }

    // The last millisecond with a tick before a time; 0 when there is none.
    long Before(const long msc) const {
        int at = Find(msc);
        return at > m_first ? m_times[at - 1] : m_totals.before_msc;
    }

    // How many of the ticks from `begin` to `end`, all of one millisecond, are not here.
    int Missing(const MqlTick &ticks[], const int begin, const int end) const {
        int missing = 0;
        for(int i = begin; i < end; i++)
            if(IsMissing(ticks, begin, i))
                missing++;
        return missing;
    }

    // Whether tick `i` is not here, when those from `begin` on precede it.
    bool IsMissing(const MqlTick &ticks[], const int begin, const int i) const {
        long msc = ticks[i].time_msc;
        return !Holds(Find(msc), msc, TickHash(ticks[i]), Earlier(ticks, begin, i));
    }

    // Adds those of the ticks, by time, that are not here; how many they were.
    int AddMissing(const MqlTick &ticks[], const int begin, const int end) {
        int added = 0;
        for(int i = begin; i < end; i++) {
            if(!IsMissing(ticks, begin, i))
                continue;
            Add(ticks[i].time_msc, TickHash(ticks[i]));
            added++;
        }
        return added;
    }

    // Adds to totals what AddMissing() would add.
    void AddTotals(const MqlTick &ticks[], const int begin, const int end, TickTotals &totals) const {
        for(int i = begin; i < end; i++) {
            if(!IsMissing(ticks, begin, i))
                continue;
            totals.count++;
            totals.sum += TickHash(ticks[i]);
        }
    }

    // Holds ready what Commit() adds: ticks that are new for certain.
    void Propose(const MqlTick &ticks[], const int begin, const int end) {
        ArrayResize(m_next_times, end - begin, 1024);
        ArrayResize(m_next_hashes, end - begin, 1024);
        for(int i = begin; i < end; i++) {
            m_next_times[i - begin] = ticks[i].time_msc;
            m_next_hashes[i - begin] = TickHash(ticks[i]);
        }
    }

    void Commit() {
        for(int i = 0; i < ArraySize(m_next_times); i++)
            Add(m_next_times[i], m_next_hashes[i]);
        ArrayResize(m_next_times, 0, 1024);
    }

    // What the totals are after Commit().
    TickTotals NextTotals() const {
        TickTotals totals = m_totals;
        totals.count += ArraySize(m_next_times);
        for(int i = 0; i < ArraySize(m_next_times); i++)
            totals.sum += m_next_hashes[i];
        return totals;
    }

    // Drops what is before a time.
    void Drop(const long before_msc) {
        if(before_msc <= m_totals.since_msc)
            return;
        int end = Find(before_msc);
        for(; m_first < end; m_first++) {
            m_totals.count--;
            m_totals.sum -= m_hashes[m_first];
            m_totals.before_msc = m_times[m_first];
        }
        m_totals.since_msc = before_msc;
        if(m_first < 4096 || m_first * 2 < ArraySize(m_times))
            return;
        int left = Size();
        for(int i = 0; i < left; i++) {
            m_times[i] = m_times[m_first + i];
            m_hashes[i] = m_hashes[m_first + i];
        }
        ArrayResize(m_times, left, 4096);
        ArrayResize(m_hashes, left, 4096);
        m_first = 0;
    }
};

#endif
