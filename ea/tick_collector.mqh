// The collector: reads new ticks and closed bars of all symbols, stores them in the ring, sends what is in the ring.
//
// These files are MQL5 in the part of the language that C++ has too, so that the project's tests compile and run them
// (tests/integration/ea): no pointers, no references but parameters, no member initialised in place.

#ifndef TICKPIPE_TICK_COLLECTOR_MQH
#define TICKPIPE_TICK_COLLECTOR_MQH

#include "settings.mqh"
#include "outbox.mqh"
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
// Most bars of one symbol in one reading, and about how many of all in one request.
#define MOST_BARS 1500
#define BARS_OF_REQUEST 5000
// Symbols in trouble that the status names.
#define MOST_NAMED 3
// The broker's clock is a multiple of that away from UTC (seconds), and never further than 18 hours.
#define OFFSET_STEP_S 900
#define MOST_OFFSET_S 64800

class TickCollector {
private:
    CollectorSettings m_settings;
    TickRing m_ring;
    Sender m_sender;
    Outbox m_outbox;
    bool m_started;
    SymbolFeed m_feeds[];
    // Whose turn is first: no symbol waits for ever behind a busy one.
    int m_turn;
    int m_check_turn;
    ulong m_bars_at;
    ulong m_checks_at;
    ulong m_symbols_at;
    ulong m_read_at;
    ulong m_turn_ended;
    bool m_was_connected;
    long m_lost;
    bool m_was_full;
    long m_full_times;
    long m_left_out_ms;
    long m_late_said;
    bool m_disk_said;
    // Names that the broker does not know, each said once.
    string m_unknown;

    // Letters, digits, `.`, `_` and `-` of a text; what else is in it becomes `-`.
    string Plain(const string text) const {
        string plain = "";
        for(int i = 0; i < StringLen(text) && i < 64; i++) {
            ushort c = StringGetCharacter(text, i);
            bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                        c == '_' || c == '-';
            plain += fine ? StringSubstr(text, i, 1) : "-";
        }
        return plain;
    }

    // Offset of the broker's clock from UTC (seconds); false while the terminal does not know the broker's time.
    bool UtcOffset(int &offset_s) const {
        offset_s = NO_OFFSET;
        if(m_settings.clock == CLOCK_SERVER)
            return true;
        if(m_settings.clock == CLOCK_FIXED) {
            offset_s = m_settings.fixed_offset_s;
            return true;
        }
        double apart_s = (double)((long)TimeTradeServer() - (long)TimeGMT());
        offset_s = (int)MathRound(apart_s / OFFSET_STEP_S) * OFFSET_STEP_S;
        return MathAbs(offset_s) <= MOST_OFFSET_S;
    }

    void AddSymbol(const string symbol) {
        int count = ArraySize(m_feeds);
        for(int i = 0; i < count; i++)
            if(m_feeds[i].Name() == symbol)
                return;
        ArrayResize(m_feeds, count + 1, 64);
        m_feeds[count].Begin(symbol);
    }

    void FindSymbols() {
        if(m_settings.symbols == "") {
            for(int i = 0; i < SymbolsTotal(true); i++) {
                string name = SymbolName(i, true);
                // The terminal also selects what it needs to compute margins, and shows it nowhere.
                if(SymbolInfoInteger(name, SYMBOL_VISIBLE) != 0 && SymbolInfoInteger(name, SYMBOL_CUSTOM) == 0)
                    AddSymbol(name);
            }
            return;
        }
        string names[];
        int count = StringSplit(m_settings.symbols, ',', names);
        for(int i = 0; i < count; i++) {
            StringTrimLeft(names[i]);
            StringTrimRight(names[i]);
            if(names[i] == "")
                continue;
            if(SymbolSelect(names[i], true))
                AddSymbol(names[i]);
            else if(StringFind(m_unknown, "," + names[i] + ",") < 0) {
                m_unknown += "," + names[i] + ",";
                Print("The broker has no symbol ", names[i], " (Symbols).");
            }
        }
    }

    // Looks at the newest quotes. A symbol that has its first one begins, and a restart must begin there as well.
    void LookAtQuotes() {
        CursorMark marks[];
        int begun = 0;
        for(int i = 0; i < ArraySize(m_feeds) && !IsStopped(); i++) {
            m_feeds[i].Look();
            if(!m_feeds[i].CanBegin())
                continue;
            long left_out_ms = m_feeds[i].BeginAt(m_ring, m_settings.first_hours, m_settings.catch_up_hours);
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
            m_ring.Remember(marks);
    }

    // Whether a request lies on the disk.
    bool Store(const int kind, const int items, const string text, const CursorMark &marks[]) {
        char body[];
        ToUtf8(text, body);
        if(m_ring.Append(kind, items, body, marks)) {
            m_disk_said = false;
            return true;
        }
        if(!m_disk_said)
            Print("The disk takes nothing: is it full? The ticks stay in the terminal's history until it does.");
        m_disk_said = true;
        return false;
    }

    int MostTicks() const {
        int limit = m_outbox.Limit();
        return limit > 0 && limit < m_settings.max_ticks ? limit : m_settings.max_ticks;
    }

    string TickItems(const MqlTick &ticks[], const int first, const int end, const SymbolFacts &facts, const bool goes_on) const {
        string text = "";
        for(int k = first; k < end; k++) {
            if(goes_on || k > first)
                text += ",\n";
            text += TickItem(ticks[k], facts);
        }
        return text;
    }

    // Reads one symbol into the request that is being written. False when the call took so long that the others go first.
    bool ReadSymbol(const int i, const int most, string &text, int &items, int &read[], bool &more) {
        MqlTick ticks[];
        int first = 0;
        int end = 0;
        ulong called = GetTickCount64();
        if(m_feeds[i].Read(ticks, most < READ_TICKS ? most : READ_TICKS, first, end)) {
            text += TickItems(ticks, first, end, m_feeds[i].Facts(), items > 0);
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
    bool ReadTicks(const int offset_s, const ulong began) {
        int symbols = ArraySize(m_feeds);
        int most = MostTicks();
        int items = 0;
        bool more = false;
        int read[];
        string text = BodyHead("ticks", offset_s);
        int begin = m_turn;
        bool goes_on = true;
        for(int n = 0; n < 2 * symbols && goes_on && items < most && !IsStopped(); n++) {
            int i = (begin + n) % symbols;
            bool is_second_round = n >= symbols;
            if(!m_feeds[i].MayTry() || m_feeds[i].IsTroubled() != is_second_round || !m_feeds[i].IsDue())
                continue;
            goes_on = ReadSymbol(i, most, text, items, read, more) && !is_second_round &&
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
        if(!Store(RECORD_TICKS, items, text + BODY_END, marks))
            return false;
        for(int k = 0; k < count; k++)
            m_feeds[read[k]].Taken();
        return more || items >= most;
    }

    // Sends the ticks that came into a symbol's list behind its cursor, whole milliseconds of at most `most` ticks or so.
    bool SendLate(const int i, const int offset_s, const MqlTick &late[]) {
        int count = ArraySize(late);
        int most = MostTicks();
        CursorMark marks[];
        ArrayResize(marks, 1);
        for(int first = 0; first < count;) {
            int end = (int)MathMin(first + most, count);
            while(end < count && late[end].time_msc == late[end - 1].time_msc)
                end++;
            m_feeds[i].MarkWithLate(late, first, end, marks[0]);
            string text = BodyHead("ticks", offset_s) + TickItems(late, first, end, m_feeds[i].Facts(), false) + BODY_END;
            if(m_ring.IsFull() || !Store(RECORD_TICKS, end - first, text, marks))
                return false;
            m_feeds[i].TakenLate(late, first, end);
            first = end;
        }
        return true;
    }

    // Reads again what is due, since the terminal's list may have changed.
    void ReadAgain(const int offset_s, const ulong began) {
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
                if(!m_feeds[i].ReadAgain(from_msc, end_msc, late) || !SendLate(i, offset_s, late))
                    break;
                m_feeds[i].Checked(check, end_msc);
            }
        }
        long late_ticks = LateTicks();
        if(late_ticks > m_late_said)
            Print(IntegerToString(late_ticks - m_late_said), " ticks came late into the terminal's list and are sent now.");
        m_late_said = late_ticks;
    }

    long LateTicks() const {
        long late = 0;
        for(int i = 0; i < ArraySize(m_feeds); i++)
            late += m_feeds[i].Late();
        return late;
    }

    // Reads the bars that closed since the last time.
    void ReadBars(const int offset_s, const ulong began) {
        int items = 0;
        string text = BodyHead("items", offset_s);
        CursorMark marks[];
        int read[];
        MqlRates bars[];
        for(int i = 0; i < ArraySize(m_feeds) && !IsStopped(); i++) {
            if(items >= BARS_OF_REQUEST || GetTickCount64() - began > (ulong)m_settings.timeout_ms) {
                m_bars_at = 0; // the others at the next turn
                break;
            }
            long next_time = 0;
            int found = m_feeds[i].ReadBars(bars, MOST_BARS, next_time);
            for(int k = 0; k < found; k++) {
                if(items > 0)
                    text += ",\n";
                text += BarItem(bars[k], m_feeds[i].Facts());
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
        bool stored = items == 0 || Store(RECORD_BARS, items, text + BODY_END, marks);
        for(int k = 0; k < ArraySize(read); k++) {
            if(stored)
                m_feeds[read[k]].SetBarTime(marks[k].bar_time);
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

    void NoteFull() {
        bool full = m_ring.IsFull();
        if(full && !m_was_full) {
            m_full_times++;
            Print("The ring is full (RingMegabytes): newer ticks wait in the terminal's history until a server takes the older.");
        }
        m_was_full = full;
    }

    // Whether the terminal has its broker. After a reconnection or a long pause its list may be filled from behind.
    bool IsConnected() {
        bool connected = TerminalInfoInteger(TERMINAL_CONNECTED) != 0;
        bool paused = m_turn_ended != 0 && GetTickCount64() - m_turn_ended > LONG_PAUSE_MS;
        if(connected && (paused || !m_was_connected))
            for(int i = 0; i < ArraySize(m_feeds); i++)
                m_feeds[i].Doubt();
        m_was_connected = connected;
        return connected;
    }

    // Reads what is new. Whether there may be more at once. `going_on` says that the last reading of this turn left some.
    bool Read(const ulong began, const bool going_on) {
        int offset_s = 0;
        NoteFull();
        bool connected = IsConnected();
        m_turn_ended = GetTickCount64();
        if(m_was_full || !connected || !UtcOffset(offset_s))
            return false;
        if(m_ring.Waiting() > 0 && !going_on && !Due(m_read_at, BUSY_READ_MS))
            return false;
        if(Due(m_symbols_at, SYMBOLS_EVERY_MS)) {
            FindSymbols();
            for(int i = 0; i < ArraySize(m_feeds); i++)
                m_feeds[i].RefreshFacts();
        }
        LookAtQuotes();
        bool more = ReadTicks(offset_s, began);
        if(Due(m_checks_at, CHECKS_EVERY_MS))
            ReadAgain(offset_s, began);
        if(m_settings.send_bars && Due(m_bars_at, BARS_EVERY_MS))
            ReadBars(offset_s, began);
        return more;
    }

    // A record that could not be read back from the disk is lost: its ticks are read from the terminal again.
    void NoteLost() {
        if(m_outbox.Lost() == m_lost)
            return;
        m_lost = m_outbox.Lost();
        for(int i = 0; i < ArraySize(m_feeds); i++)
            m_feeds[i].SendAgain();
    }

    void Forget() {
        m_started = false;
        ArrayResize(m_feeds, 0);
        m_turn = 0;
        m_check_turn = 0;
        m_bars_at = 0;
        m_checks_at = 0;
        m_symbols_at = 0;
        m_read_at = 0;
        m_turn_ended = 0;
        m_was_connected = true;
        m_lost = 0;
        m_was_full = false;
        m_full_times = 0;
        m_left_out_ms = 0;
        m_late_said = 0;
        m_disk_said = false;
        m_unknown = "";
    }

public:
    TickCollector() { Forget(); }

    // False when nothing can be done with these settings; the log says why.
    bool Begin(const CollectorSettings &settings) {
        // MetaTrader keeps global variables when inputs or the chart change.
        Forget();
        m_settings = settings;
        if(BaseUrl(settings.relay_url) != "" || BaseUrl(settings.server_url) != "")
            return true;
        Print("Nowhere to send to. Cure: give RelayUrl, ServerUrl or both.");
        return false;
    }

    // One turn: read, store, send. Takes no longer than TimeoutMs, but for CopyTicks, which waits while the terminal
    // fetches a symbol's history for the first time.
    void Turn() {
        if(!m_started && !Start())
            return;
        ulong began = GetTickCount64();
        bool more = false;
        do {
            m_outbox.Drain(m_ring, m_sender, began, m_settings.timeout_ms);
            NoteLost();
            if((GetTickCount64() - began) * 2 > (ulong)m_settings.timeout_ms || IsStopped())
                return;
            more = Read(began, more);
        } while(more && !IsStopped());
        m_outbox.Drain(m_ring, m_sender, began, m_settings.timeout_ms);
        m_turn_ended = GetTickCount64();
    }

    // False while the terminal does not know its broker, or the ring cannot be opened.
    bool Start() {
        string server = Plain(AccountInfoString(ACCOUNT_SERVER));
        if(server == "" || TimeTradeServer() == 0)
            return false;
        string agent = "DataCollectorPRO/";
        agent += COLLECTOR_VERSION;
        string account = AccountName(server);
        agent += " (Server:" + server + "; Account:" + account + "; Build:" + IntegerToString(TerminalInfoInteger(TERMINAL_BUILD)) + ")";
        m_sender.Begin(m_settings, m_settings.source == "auto" ? server : m_settings.source, agent);
        m_outbox.Begin("ea-" + account);
        string folder = "DataCollectorPRO\\" + server;
        if(!m_ring.Open(folder, m_settings.ring_megabytes)) {
            if(!m_disk_said)
                Print("The ring in Common\\Files\\", folder, " cannot be opened. Does another chart or terminal run ",
                      "DataCollectorPRO? One is enough for all symbols. Else: is the disk full?");
            m_disk_said = true;
            m_ring.Close();
            return false;
        }
        m_disk_said = false;
        m_started = true;
        if(m_ring.Waiting() > 0)
            Print(IntegerToString(m_ring.Waiting()), " requests of the last run wait in the ring and are sent first.");
        return true;
    }

    void End() { m_ring.Close(); }

    // The symbols that cannot be read now, each with the reason.
    string SymbolsInTrouble() const {
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

    // How it stands, for the chart.
    string Status() const {
        string text = IntegerToString(ArraySize(m_feeds)) + " symbols, " + IntegerToString(m_outbox.SentTicks()) +
                      " ticks and " + IntegerToString(m_outbox.SentBars()) + " bars sent, " +
                      IntegerToString(m_ring.Waiting()) + " requests wait (" +
                      IntegerToString((long)(m_ring.Bytes() / 1024)) + " KB)";
        long refused = m_outbox.Refused() + m_sender.RefusedItems();
        if(refused > 0)
            text += ", " + IntegerToString(refused) + " items refused";
        if(m_outbox.Lost() > 0)
            text += ", " + IntegerToString(m_outbox.Lost()) + " requests lost";
        if(m_full_times > 0)
            text += ", ring full " + IntegerToString(m_full_times) + " times";
        if(LateTicks() > 0)
            text += ", " + IntegerToString(LateTicks()) + " ticks came late";
        if(m_left_out_ms > 0)
            text += ", " + IntegerToString(m_left_out_ms / 60000) + " minutes left out at the start";
        return "DataCollectorPRO: " + text + "\n" + m_sender.Trouble() + SymbolsInTrouble();
    }
};

#endif
