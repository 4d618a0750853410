// One symbol: its cursor, what was taken of it lately, when it is read again, and what is wrong with it.

#ifndef TICKPIPE_SYMBOL_FEED_MQH
#define TICKPIPE_SYMBOL_FEED_MQH

#include "bar_cursor.mqh"
#include "tick_cursor.mqh"
#include "check_schedule.mqh"
#include "reading_trouble.mqh"
#include "tick_ring.mqh"

// Without a new quote the list is read so often all the same (ms).
#define QUIET_READ_MS 10000

class SymbolFeed {
private:
    string m_symbol;
    TickCursor m_cursor;
    RecentTicks m_recent;
    SymbolFacts m_facts;
    // Whether it is known where to begin.
    bool m_begun;
    ulong m_seen_at;
    // The newest quote, when it came (GetTickCount64), and when the list was last read.
    long m_quote_msc;
    ulong m_quote_at;
    bool m_has_new_quote;
    ulong m_read_at;
    ReadingTrouble m_trouble;
    bool m_has_expired;
    // The latest tick of the newest record of this symbol. A record that begins before it is a resend to the server.
    long m_sent_msc;
    CheckSchedule m_checks;
    // Up to where ticks from before the clock went back may still have to be taken; 0 when they were.
    long m_rest_msc;
    BarCursor m_bars;
    // What is sent again up to here did not come late, but for some of which only the number is known.
    long m_resend_msc;
    long m_late_of_resend;
    long m_late;

    // The time at the broker by this symbol's newest quote: the PC's clock may be wrong.
    long NowMsc() const { return m_quote_msc + (long)(GetTickCount64() - m_quote_at); }

    // The broker's clock went back while this symbol trades: its ticks carry times again that were there before.
    void ClockWentBack(const long before_msc) {
        Print(m_symbol, ": the broker's clock went back from ", TimeToString((datetime)(before_msc / 1000)), " to ",
              TimeToString((datetime)(m_quote_msc / 1000)), "; what is new in that time is found by comparing.");
        m_checks.BeginRepeat(m_quote_msc, before_msc);
        m_rest_msc = m_checks.RepeatTo();
        // Of the time before this program's own begin, what is behind the newest quote was there when it was shown first.
        long since_msc = m_recent.SinceMsc();
        MqlTick ticks[];
        int copied = 0;
        if(m_recent.IsLoaded() && since_msc > m_quote_msc && m_trouble.CopyRange(m_quote_msc + 1, since_msc - 1, 0, ticks, copied))
            m_recent.ReachBack(m_checks.RepeatFrom(), ticks, copied);
    }

    // What came before the clock went back and was not taken yet.
    bool ReadRest(MqlTick &ticks[], int &first, int &end) {
        first = 0;
        if(!m_trouble.CopyRange(m_cursor.Msc() + 1, m_rest_msc, 0, ticks, end))
            return false;
        if(end == 0) {
            m_rest_msc = 0;
            return false;
        }
        m_cursor.Propose(ticks, end);
        m_recent.Propose(ticks, first, end);
        return true;
    }

    bool IsRepeating() const { return m_checks.IsRepeating(); }
    // Compares the list of the time before a restart with what was taken then.
    bool LoadRecent() {
        MqlTick ticks[];
        int copied = 0;
        TickTotals before = m_recent.Totals();
        if(!m_trouble.CopyRange(before.since_msc, m_cursor.Msc(), before.count, ticks, copied))
            return false;
        if(m_recent.Load(ticks, copied))
            return true;
        if(IsRepeating()) {
            Print(m_symbol, ": nobody looked when the broker's clock went back; what came since is left out.");
            m_recent.Adopt(ticks, copied);
            return true;
        }
        Print(m_symbol, ": the terminal's list changed since the last run (", IntegerToString(before.count), " ticks then, ",
              IntegerToString(copied), " now); that time is sent again.");
        m_late_of_resend = MathMax((long)copied - before.count, (long)0);
        m_resend_msc = m_cursor.Msc();
        return true;
    }

public:
    SymbolFeed() { Begin(""); }

    void Begin(const string symbol) {
        m_symbol = symbol;
        ReadFacts(symbol, m_facts);
        m_begun = false;
        m_seen_at = GetTickCount64();
        m_quote_msc = 0;
        m_quote_at = 0;
        m_has_new_quote = false;
        m_read_at = 0;
        m_trouble.Begin(symbol);
        m_has_expired = false;
        m_sent_msc = 0;
        m_checks.Begin(0);
        m_rest_msc = 0;
        m_bars.Begin(0);
        m_resend_msc = 0;
        m_late_of_resend = 0;
        m_late = 0;
    }

    string Name() const { return m_symbol; }
    bool IsTroubled() const { return m_trouble.Is(); }
    bool HasMore() const { return m_cursor.HasMore(); }
    // Ticks that came into the terminal's list behind the cursor.
    long Late() const { return m_late; }
    string ItemOf(const MqlTick &tick, const bool is_late) const { return TickItem(tick, m_facts, is_late); }
    string ItemOfBar(const MqlRates &bar) const { return BarItem(bar, m_facts); }
    string Trouble() const { return m_trouble.Text(); }
    // Up to where everything was taken; 0 while more than that may be there, and in trouble.
    long TakenUpTo(const long msc) const {
        bool is_ready = m_begun && !IsTroubled() && m_recent.IsLoaded() && !IsRepeating();
        return is_ready && (m_cursor.Msc() >= msc || !HasMore()) ? m_cursor.Msc() : 0;
    }

    // Reads again what a broker may change: digits, point and chart mode.
    void RefreshFacts() {
        if(SymbolInfoInteger(m_symbol, SYMBOL_EXIST) == 0)
            return;
        ReadFacts(m_symbol, m_facts);
        long expires = SymbolInfoInteger(m_symbol, SYMBOL_EXPIRATION_TIME);
        bool has_expired = expires > 0 && m_quote_msc > 0 && expires * 1000 <= NowMsc();
        if(has_expired && !m_has_expired)
            Print(m_symbol, ": expired on ", TimeToString((datetime)expires), "; it is still looked at every ten seconds.");
        m_has_expired = has_expired;
    }

    // Looks at the newest quote.
    void Look() {
        long quote_msc = SymbolInfoInteger(m_symbol, SYMBOL_TIME_MSC);
        if(quote_msc == 0 || quote_msc == m_quote_msc)
            return;
        long before_msc = m_quote_msc;
        m_quote_msc = quote_msc;
        m_quote_at = GetTickCount64();
        m_has_new_quote = true;
        if(m_begun && quote_msc < before_msc - CLOCK_BACK_MS)
            ClockWentBack(MathMax(before_msc, m_cursor.Msc()));
    }

    // Begins at the newest quote, `first_hours` before it, or where the ring says. How much is left out (ms).
    long BeginAt(const TickRing &ring, const int first_hours, const int catch_up_hours) {
        CursorMark mark;
        bool is_known = ring.FindMark(m_symbol, mark);
        // Without a quote at first, what came since is new.
        long newest_msc = m_quote_msc;
        if(!is_known && m_quote_at - m_seen_at > 0)
            newest_msc -= (long)(m_quote_at - m_seen_at) + 1;
        long left_out_ms = 0;
        if(!is_known) {
            mark.msc = newest_msc - (long)first_hours * 3600000;
            mark.taken = 0;
            mark.bar_time = mark.msc / MINUTE_MS * MINUTE_S - MINUTE_S;
        }
        long oldest_msc = newest_msc - (long)catch_up_hours * 3600000;
        if(mark.msc < oldest_msc) {
            left_out_ms = oldest_msc - mark.msc;
            mark.msc = oldest_msc - 1;
            mark.taken = 0;
            is_known = false;
        }
        if(!is_known) {
            mark.recent.since_msc = mark.msc + 1;
            mark.recent.count = 0;
            mark.recent.sum = 0;
            mark.recent.before_msc = 0;
        }
        m_cursor.Begin(m_symbol, mark.msc, mark.taken);
        if(is_known)
            m_cursor.Hold();
        m_recent.Begin(mark.recent);
        m_checks.Begin(mark.recent.since_msc);
        if(is_known && m_quote_msc < mark.msc - CLOCK_BACK_MS)
            ClockWentBack(mark.msc);
        m_sent_msc = is_known ? mark.sent_msc : mark.msc;
        m_bars.Begin(MathMax(mark.bar_time, oldest_msc / MINUTE_MS * MINUTE_S - MINUTE_S));
        m_begun = true;
        return left_out_ms;
    }

    bool CanBegin() const { return !m_begun && m_quote_msc > 0; }
    bool MayTry() const { return m_begun && m_trouble.MayTry() && (!IsRepeating() || m_rest_msc > 0); }

    // Whether reading may bring something.
    bool IsDue() const {
        return m_has_new_quote || m_cursor.HasMore() || m_cursor.HasWaited() || !m_recent.IsLoaded() ||
               GetTickCount64() - m_read_at >= QUIET_READ_MS;
    }

    // Reads what can be taken: ticks[first] to ticks[end - 1]; false when there is nothing.
    bool Read(MqlTick &ticks[], const int room, int &first, int &end) {
        if(!m_recent.IsLoaded() && !LoadRecent())
            return false;
        if(IsRepeating())
            return ReadRest(ticks, first, end);
        m_has_new_quote = false;
        m_read_at = GetTickCount64();
        bool found = m_cursor.Read(ticks, room, first, end);
        if(m_cursor.Error() == 0)
            m_trouble.Succeeded();
        else
            m_trouble.Failed(m_cursor.Error());
        if(found)
            m_recent.Propose(ticks, first, end);
        return found;
    }

    void MarkNow(CursorMark &mark) const {
        mark.symbol = m_symbol;
        mark.msc = m_cursor.Msc();
        mark.taken = m_cursor.Taken();
        mark.bar_time = m_bars.Time();
        mark.recent = m_recent.Totals();
        mark.sent_msc = m_sent_msc;
    }

    // What is true once the ticks that Read() gave are stored.
    void MarkNext(CursorMark &mark) const {
        MarkNow(mark);
        mark.msc = m_cursor.NextMsc();
        mark.taken = m_cursor.NextTaken();
        mark.recent = m_recent.NextTotals();
        mark.sent_msc = mark.msc;
    }

    // The ticks that Read() gave go into another request.
    void NotTaken() { m_has_new_quote = true; }
    // The ticks that Read() gave are stored.
    void Taken() {
        m_rest_msc = 0;
        m_recent.Commit();
        m_cursor.Advance();
        m_sent_msc = m_cursor.Msc();
    }

    // After a reconnection or a long pause the list may still change behind the cursor.
    void Doubt() {
        m_cursor.Hold();
        m_checks.Doubt(m_recent.SinceMsc());
    }

    // A record was lost: the last hours are sent again.
    void SendAgain() {
        if(!m_recent.IsLoaded())
            return;
        m_recent.Forget();
        m_checks.Begin(m_recent.SinceMsc());
        m_resend_msc = m_cursor.Msc();
    }

    // The broker's clock differs from UTC by something else now: what was sent before cannot be sent again by it. Where the
    // quotes went back first, that is known already.
    void ClockChanged() {
        if(!IsRepeating())
            m_checks.NotBefore(m_cursor.Msc() + 1);
    }

    // Which time is to be read again, and by which check; false when none is.
    bool NextCheck(int &check, long &from_msc, long &end_msc) const {
        bool may_try = IsRepeating() ? m_trouble.MayTry() : !m_trouble.Is() && m_recent.IsLoaded();
        return m_begun && may_try &&
               m_checks.Next(NowMsc(), m_cursor.Msc(), check, from_msc, end_msc);
    }

    // Reads a time again: all ticks of the milliseconds in which some are new, or in a time that the clock shows twice those
    // alone. False when the answer is not whole.
    bool ReadAgain(const long from_msc, const long end_msc, MqlTick &late[]) {
        MqlTick ticks[];
        int copied = 0, count = 0;
        ArrayResize(late, 0);
        long to_msc = MathMin(end_msc - 1, m_cursor.Msc());
        if(!m_recent.IsLoaded() && !LoadRecent())
            return false;
        if(!m_trouble.CopyRange(from_msc, to_msc, m_recent.Count(from_msc, to_msc), ticks, copied))
            return false;
        for(int i = 0; i < copied;) {
            int end = i + 1;
            while(end < copied && ticks[end].time_msc == ticks[i].time_msc)
                end++;
            if(m_recent.Missing(ticks, i, end) > 0) {
                ArrayResize(late, count + end - i, 4096);
                for(int k = i; k < end; k++)
                    if(!m_checks.IsTwice(ticks[k].time_msc) || m_recent.IsMissing(ticks, i, k)) {
                        late[count] = ticks[k];
                        count++;
                    }
                ArrayResize(late, count, 4096);
            }
            i = end;
        }
        return count == 0 || m_checks.IsTwice(late[0].time_msc) || GoBack(late);
    }

    // A resend is known by its going back. One that begins where the last record ended gets the millisecond before it too;
    // where there is none, the newest comes first, in a request of its own. The very first waits for another: false.
    bool GoBack(MqlTick &late[]) {
        long before_msc = m_recent.Before(late[0].time_msc);
        long other_msc = before_msc > 0 ? before_msc : m_cursor.Msc();
        if(late[0].time_msc != m_sent_msc)
            return true;
        MqlTick ticks[];
        int copied = 0;
        if(other_msc == m_sent_msc || !m_trouble.CopyRange(other_msc, other_msc, 1, ticks, copied))
            return false;
        ArrayCopy(ticks, late, copied);
        return ArrayCopy(late, ticks) > 0;
    }

    // A record of older ticks is stored, and ends at this time.
    void Sent(const long msc) { m_sent_msc = msc; }
    // What is true once late ticks are stored.
    void MarkWithLate(const MqlTick &ticks[], const int first, const int end, CursorMark &mark) const {
        MarkNow(mark);
        m_recent.AddTotals(ticks, first, end, mark.recent);
        mark.sent_msc = ticks[end - 1].time_msc;
    }

    // Which of the ticks came into the list behind the cursor; of those that came while nobody looked only the number is known.
    int FindLate(const MqlTick &ticks[], const int first, const int end, uchar &late[]) const {
        int found = 0, begin = first;
        ArrayResize(late, end - first);
        for(int i = first; i < end; i++) {
            if(ticks[i].time_msc != ticks[begin].time_msc)
                begin = i;
            bool may_be = !m_checks.IsTwice(ticks[i].time_msc) && (ticks[i].time_msc > m_resend_msc || found < m_late_of_resend);
            late[i - first] = (uchar)(may_be && m_recent.IsMissing(ticks, begin, i) ? 1 : 0);
            found += late[i - first];
        }
        return found;
    }

    // Late ticks are stored; their bars are sent again as well.
    void TakenLate(const MqlTick &ticks[], const int first, const int end) {
        uchar late[];
        int found = FindLate(ticks, first, end, late);
        m_recent.AddMissing(ticks, first, end);
        m_late += found;
        m_late_of_resend = MathMax(m_late_of_resend - found, (long)0);
        m_sent_msc = ticks[end - 1].time_msc;
        if(found > 0)
            m_bars.ReadAgain(ticks[first].time_msc / MINUTE_MS * MINUTE_S);
    }

    // A check has read again up to here.
    void Checked(const int check, const long end_msc) {
        m_checks.Done(check, end_msc);
        if(check == CHECKS && !IsRepeating())
            m_cursor.Begin(m_symbol, MathMax(m_checks.RepeatTo(), m_cursor.Msc()), 0);
        m_recent.Drop(MathMin(MathMax(m_checks.DoneMsc(), m_cursor.Msc() - MOST_RECENT_MS), m_cursor.Msc()));
        m_checks.NotBefore(m_recent.SinceMsc());
        if(check == 0 && end_msc > m_resend_msc)
            m_resend_msc = 0;
    }

    // Reads the bars that closed since the last time; how many, and up to where the cursor may move once they are stored.
    int ReadBars(MqlRates &bars[], long &next_time) {
        next_time = m_bars.Time();
        return m_begun && !m_trouble.Is() ? m_bars.Read(m_symbol, m_quote_msc, bars, next_time) : 0;
    }

    long BarTime() const { return m_bars.Time(); }
    void BarsStored(const long time) { m_bars.Advance(time); }
    void BarsNotStored() { m_bars.ReadAgain(m_bars.Time() + MINUTE_S); }
};

#endif
