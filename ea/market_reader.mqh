// Reads new ticks and closed bars of all symbols from the terminal, and stores them in the ring.

#ifndef TICKPIPE_MARKET_READER_MQH
#define TICKPIPE_MARKET_READER_MQH

#include "broker_clock.mqh"
#include "symbol_choice.mqh"
#include "symbol_feed.mqh"

// Most ticks of one symbol in one reading.
#define READ_TICKS 1000
// How often closed bars are looked for, what is to be read again, and the Market Watch for new symbols (ms).
#define BARS_EVERY_MS 5000
#define CHECKS_EVERY_MS 1000
#define SYMBOLS_EVERY_MS 30000
// How often ticks are read while the ring is not empty: fewer and larger requests when nobody takes them (ms).
#define BUSY_READ_MS 5000
// A call that takes so long waited for the broker: the other symbols have their turn first (ms).
#define SLOW_CALL_MS 1000
// When nobody looked for so long, the list may have been filled from behind (ms).
#define LONG_PAUSE_MS 30000
// Most times that are read again in a turn.
#define CHECKS_OF_TURN 50
// Bars of a request, about.
#define BARS_OF_REQUEST 5000
// Symbols in trouble that the status names.
#define MOST_NAMED 3

class MarketReader {
private:
    CollectorSettings m_settings;
    SymbolChoice m_choice;
    SymbolFeed m_feeds[];
    // Whose turn is first: no symbol waits for ever behind a busy one.
    int m_turn;
    int m_check_turn;
    ulong m_bars_at;
    ulong m_checks_at;
    ulong m_symbols_at;
    ulong m_read_at;
    ulong m_looked_at;
    bool m_was_connected;
    BrokerClock m_clock;
    long m_left_out_ms;
    long m_late_said;
    bool m_disk_said;

    void AddSymbol(const string symbol) {
        int count = ArraySize(m_feeds);
        for(int i = 0; i < count; i++)
            if(m_feeds[i].Name() == symbol)
                return;
        ArrayResize(m_feeds, count + 1, 64);
        m_feeds[count].Begin(symbol);
    }

    // Looks at the newest quotes. A symbol that has its first one begins, and a restart must begin there as well.
    void LookAtQuotes(TickRing &ring) {
        CursorMark marks[];
        int begun = 0;
        for(int i = 0; i < ArraySize(m_feeds) && !IsStopped(); i++) {
            m_feeds[i].Look();
            if(!m_feeds[i].CanBegin())
                continue;
            long left_out_ms = m_feeds[i].BeginAt(ring, m_settings.first_hours, m_settings.catch_up_hours);
            m_feeds[i].RefreshFacts();
            if(left_out_ms > 0)
                Print(m_feeds[i].Name(), ": ", IntegerToString(left_out_ms / 60000), " minutes are left out, ",
                      IntegerToString(m_settings.catch_up_hours), " hours are caught up (CatchUpHours).");
            m_left_out_ms += left_out_ms;
            ArrayResize(marks, begun + 1, 64);
            m_feeds[i].MarkNow(marks[begun]);
            begun++;
        }
        if(begun > 0)
            ring.Remember(marks);
    }

    // Whether a request lies on the disk.
    bool Store(TickRing &ring, const int kind, const int items, const string text, const CursorMark &marks[]) {
        char body[];
        ToUtf8(text, body);
        if(ring.Append(kind, items, body, marks)) {
            m_disk_said = false;
            return true;
        }
        if(!m_disk_said)
            Print("The disk takes nothing: is it full? The ticks stay in the terminal's history until it does.");
        m_disk_said = true;
        return false;
    }

    // The ticks as JSON. Those that a symbol is read `again` for say which of them came late.
    string TickItems(const MqlTick &ticks[], const int first, const int end, const int i, const bool goes_on, const bool again) const {
        string text = "";
        uchar late[];
        if(again)
            m_feeds[i].FindLate(ticks, first, end, late);
        for(int k = first; k < end; k++) {
            if(goes_on || k > first)
                text += ",\n";
            text += m_feeds[i].ItemOf(ticks[k], again && late[k - first] == 1);
        }
        return text;
    }

    // Reads one symbol into the request that is being written. False when the call took so long that the others go first.
    bool ReadSymbol(const int i, const int most, string &text, int &items, int &offset_s, int &read[], bool &more) {
        MqlTick ticks[];
        int first = 0;
        int end = 0;
        ulong called = GetTickCount64();
        bool found = m_feeds[i].Read(ticks, most < READ_TICKS ? most : READ_TICKS, first, end);
        if(found && !FitsOffset(ticks[first].time_msc, items, offset_s)) {
            m_feeds[i].NotTaken();
            more = true;
        } else if(found) {
            text += TickItems(ticks, first, end, i, items > 0, false);
            items += end - first;
            more = more || m_feeds[i].HasMore();
            int count = ArraySize(read);
            ArrayResize(read, count + 1, 64);
            read[count] = i;
        }
        return GetTickCount64() - called < SLOW_CALL_MS;
    }

    // Reads new ticks of all symbols into one request and stores it. Whether there are more. Symbols in trouble come last and
    // one in a turn, for each may cost the others 45 s.
    bool ReadTicks(TickRing &ring, const int most, const ulong began) {
        int symbols = ArraySize(m_feeds);
        int items = 0;
        bool more = false;
        int read[];
        string text = "";
        int offset_s = NO_OFFSET;
        int begin = m_turn;
        bool goes_on = true;
        for(int n = 0; n < 2 * symbols && goes_on && items < most && !IsStopped(); n++) {
            int i = (begin + n) % symbols;
            bool is_second_round = n >= symbols;
            if(!m_feeds[i].MayTry() || m_feeds[i].IsTroubled() != is_second_round || !m_feeds[i].IsDue())
                continue;
            goes_on = ReadSymbol(i, most, text, items, offset_s, read, more) && !is_second_round &&
                      GetTickCount64() - began <= (ulong)m_settings.timeout_ms;
            m_turn = (i + 1) % symbols;
        }
        if(items == 0)
            return false;
        int count = ArraySize(read);
        CursorMark marks[];
        ArrayResize(marks, count);
        for(int k = 0; k < count; k++)
            m_feeds[read[k]].MarkNext(marks[k]);
        if(!Store(ring, RECORD_TICKS, items, BodyHead("ticks", offset_s) + text + BODY_END, marks))
            return false;
        for(int k = 0; k < count; k++)
            m_feeds[read[k]].Taken();
        return more || items >= most;
    }

    // Sends the ticks that came into a symbol's list behind its cursor, whole milliseconds of at most `most` ticks or so. A
    // request ends where the time goes back.
    bool SendLate(TickRing &ring, const int most, const int i, const int offset_s, const MqlTick &late[]) {
        int count = ArraySize(late);
        CursorMark marks[];
        ArrayResize(marks, 1);
        for(int first = 0; first < count;) {
            int end = first + 1;
            while(end < count && end < first + most && late[end].time_msc >= late[end - 1].time_msc)
                end++;
            while(end < count && late[end].time_msc == late[end - 1].time_msc)
                end++;
            m_feeds[i].MarkWithLate(late, first, end, marks[0]);
            string text = BodyHead("ticks", offset_s) + TickItems(late, first, end, i, false, true) + BODY_END;
            if(IsStopped() || ring.IsFull() || !Store(ring, RECORD_TICKS, end - first, text, marks))
                return false;
            m_feeds[i].TakenLate(late, first, end);
            first = end;
        }
        return true;
    }

    // Reads again what is due, since the terminal's list may have changed.
    void ReadAgain(TickRing &ring, const int most, const int offset_s, const ulong began) {
        int symbols = ArraySize(m_feeds);
        int done = 0;
        int begin = m_check_turn;
        MqlTick late[];
        for(int n = 0; n < symbols && done < CHECKS_OF_TURN && !IsStopped(); n++) {
            int i = (begin + n) % symbols;
            int check = 0;
            long from_msc = 0;
            long end_msc = 0;
            while(m_feeds[i].NextCheck(check, from_msc, end_msc)) {
                if((GetTickCount64() - began) * 2 > (ulong)m_settings.timeout_ms || IsStopped())
                    return;
                m_check_turn = (i + 1) % symbols;
                done++;
                if(!m_feeds[i].ReadAgain(from_msc, end_msc, late) || !SendLate(ring, most, i, offset_s, late))
                    break;
                m_feeds[i].Checked(check, end_msc);
            }
        }
        long late_ticks = LateTicks();
        if(late_ticks > m_late_said)
            Print(IntegerToString(late_ticks - m_late_said), " ticks came late into the terminal's list and are sent now.");
        m_late_said = late_ticks;
    }

    // Reads the bars that closed since the last time.
    void ReadBars(TickRing &ring, const ulong began) {
        int items = 0;
        int offset_s = NO_OFFSET;
        string text = "";
        CursorMark marks[];
        int read[];
        MqlRates bars[];
        for(int i = 0; i < ArraySize(m_feeds) && !IsStopped(); i++) {
            if(items >= BARS_OF_REQUEST || GetTickCount64() - began > (ulong)m_settings.timeout_ms) {
                m_bars_at = 0; // the others at the next turn
                break;
            }
            long next_time = 0;
            int found = m_feeds[i].ReadBars(bars, next_time);
            if(found > 0 && !FitsOffset((long)bars[0].time * 1000, items, offset_s)) {
                m_feeds[i].BarsNotStored();
                m_bars_at = 0;
                continue;
            }
            for(int k = 0; k < found; k++) {
                if(items > 0)
                    text += ",\n";
                text += m_feeds[i].ItemOfBar(bars[k]);
                items++;
            }
            if(next_time == m_feeds[i].BarTime())
                continue;
            int count = ArraySize(marks);
            ArrayResize(marks, count + 1, 64);
            ArrayResize(read, count + 1, 64);
            m_feeds[i].MarkNow(marks[count]);
            marks[count].bar_time = next_time;
            read[count] = i;
        }
        bool stored = items == 0 || Store(ring, RECORD_BARS, items, BodyHead("items", offset_s) + text + BODY_END, marks);
        for(int k = 0; k < ArraySize(read); k++) {
            if(stored)
                m_feeds[read[k]].BarsStored(marks[k].bar_time);
            else
                m_feeds[read[k]].BarsNotStored();
        }
    }

    // Whether `every_ms` have passed since `at`, which is then now.
    bool Due(ulong &at, const int every_ms) const {
        ulong now = GetTickCount64();
        if(at != 0 && now - at < (ulong)every_ms)
            return false;
        at = now;
        return true;
    }

    // Whether the ticks or bars of this time may go into a request that says one offset; the first decides which.
    bool FitsOffset(const long msc, const int items, int &offset_s) const {
        int offset_at_s = m_clock.OffsetAt(msc);
        if(items == 0)
            offset_s = offset_at_s;
        return offset_at_s == offset_s;
    }

    // Whether the terminal has its broker. After a reconnection or a long pause its list may be filled from behind.
    bool IsConnected() {
        bool connected = TerminalInfoInteger(TERMINAL_CONNECTED) != 0;
        bool paused = m_looked_at != 0 && GetTickCount64() - m_looked_at > LONG_PAUSE_MS;
        if(connected && (paused || !m_was_connected))
            for(int i = 0; i < ArraySize(m_feeds); i++)
                m_feeds[i].Doubt();
        m_was_connected = connected;
        return connected;
    }

public:
    MarketReader() { m_was_connected = true; }

    void Begin(const CollectorSettings &settings) {
        m_settings = settings;
        m_choice.Begin(settings.symbols);
        ArrayResize(m_feeds, 0);
        m_turn = 0;
        m_check_turn = 0;
        m_bars_at = 0;
        m_checks_at = 0;
        m_symbols_at = 0;
        m_read_at = 0;
        m_looked_at = 0;
        m_was_connected = true;
        m_clock.Begin();
        m_left_out_ms = 0;
        m_late_said = 0;
        m_disk_said = false;
    }

    int Count() const { return ArraySize(m_feeds); }
    // What was left out at the start (ms).
    long LeftOut() const { return m_left_out_ms; }

    // Ticks that came into the terminal's lists behind their cursors.
    long LateTicks() const {
        long late = 0;
        for(int i = 0; i < ArraySize(m_feeds); i++)
            late += m_feeds[i].Late();
        return late;
    }

    // Reads what is new into requests of about `most` ticks. Whether there may be more at once. `going_on` says that the last
    // reading of this turn left some.
    bool Read(TickRing &ring, const int most, const ulong began, const bool going_on) {
        int offset_s = 0;
        bool connected = IsConnected();
        m_looked_at = GetTickCount64();
        if(!connected || !UtcOffset(m_settings, offset_s))
            return false;
        if(m_clock.Note(offset_s))
            for(int i = 0; i < ArraySize(m_feeds); i++)
                m_feeds[i].ClockChanged();
        if(ring.Waiting() > 0 && !going_on && !Due(m_read_at, BUSY_READ_MS))
            return false;
        if(Due(m_symbols_at, SYMBOLS_EVERY_MS)) {
            string names[];
            m_choice.Find(names);
            for(int i = 0; i < ArraySize(names) && !IsStopped(); i++)
                AddSymbol(names[i]);
            for(int i = 0; i < ArraySize(m_feeds) && !IsStopped(); i++)
                m_feeds[i].RefreshFacts();
        }
        LookAtQuotes(ring);
        bool more = ReadTicks(ring, most, began);
        if(Due(m_checks_at, CHECKS_EVERY_MS))
            ReadAgain(ring, most, offset_s, began);
        if(m_settings.send_bars && Due(m_bars_at, BARS_EVERY_MS))
            ReadBars(ring, began);
        m_looked_at = GetTickCount64();
        return more;
    }

    string Name(const int i) const { return m_feeds[i].Name(); }
    bool IsOnline() const { return m_was_connected; }

    // The place of a symbol; -1 when it is not collected.
    int Find(const string symbol) const {
        for(int i = 0; i < ArraySize(m_feeds); i++)
            if(m_feeds[i].Name() == symbol)
                return i;
        return -1;
    }

    // See SymbolFeed: up to where everything of a symbol was taken, and what makes a request a resend.
    long TakenUpTo(const int i, const long msc) const { return m_feeds[i].TakenUpTo(msc); }
    bool GoBack(const int i, MqlTick &ticks[]) { return m_feeds[i].GoBack(ticks); }

    // Stores a request of ticks that a server lacks. False when the disk did not take it, or the ring is full.
    bool StoreFill(TickRing &ring, const int i, const int offset_s, const MqlTick &ticks[]) {
        int count = ArraySize(ticks);
        CursorMark marks[];
        ArrayResize(marks, 1);
        m_feeds[i].MarkNow(marks[0]);
        marks[0].sent_msc = ticks[count - 1].time_msc;
        string text = BodyHead("ticks", offset_s) + TickItems(ticks, 0, count, i, false, false) + BODY_END;
        if(ring.IsFull() || !Store(ring, RECORD_FILL, count, text, marks))
            return false;
        m_feeds[i].Sent(marks[0].sent_msc);
        return true;
    }

    // A record was lost: its ticks are read from the terminal again.
    void SendAgain() {
        for(int i = 0; i < ArraySize(m_feeds); i++)
            m_feeds[i].SendAgain();
    }

    // The symbols that cannot be read now, each with the reason.
    string Trouble() const {
        string text = "";
        int found = 0;
        for(int i = 0; i < ArraySize(m_feeds); i++) {
            if(!m_feeds[i].IsTroubled())
                continue;
            found++;
            if(found <= MOST_NAMED)
                text += m_feeds[i].Trouble() + "\n";
        }
        return found > MOST_NAMED ? text + IntegerToString(found - MOST_NAMED) + " more symbols cannot be read\n" : text;
    }
};

#endif
