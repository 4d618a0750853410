// The collector: reads new ticks and closed bars of all symbols, keeps them in the ring, sends what is in the ring.
//
// These files are MQL5 in the part of the language that C++ has too, so that the project's tests compile and run them
// (tests/integration/ea): no pointers, no references but parameters, no member initialised in place.

#ifndef TICKPIPE_TICK_COLLECTOR_MQH
#define TICKPIPE_TICK_COLLECTOR_MQH

#include "settings.mqh"
#include "post_body.mqh"
#include "tick_cursor.mqh"
#include "outbox.mqh"

// Most ticks of one symbol in one reading.
#define READ_TICKS 1000
// How often closed bars are looked for, and the Market Watch for new symbols (ms).
#define BARS_EVERY_MS 5000
#define SYMBOLS_EVERY_MS 30000
// How often ticks are read while the ring is not empty: fewer and larger requests when nobody takes them (ms).
#define BUSY_READ_MS 5000
// Most bars of one symbol in one reading, and about how many of all in one request.
#define MOST_BARS 1500
#define BARS_OF_REQUEST 5000
#define MINUTE_S 60
// The broker's clock is a multiple of that away from UTC (seconds), and never further than 18 hours.
#define OFFSET_STEP_S 900
#define MOST_OFFSET_S 64800
// So long after the broker's clock changed there may be ticks from before (ms).
#define FORMER_MS 60000

class TickCollector {
private:
    CollectorSettings m_settings;
    TickRing m_ring;
    Sender m_sender;
    Outbox m_outbox;
    bool m_started;
    TickCursor m_cursors[];
    SymbolFacts m_facts[];
    long m_bar_times[];
    // Whose turn is first: no symbol waits for ever behind a busy one.
    int m_turn;
    // The broker's offset from UTC, the one that it had before, and since when it is another (GetTickCount64).
    int m_offset_s;
    int m_former_offset_s;
    ulong m_offset_since;
    ulong m_bars_at;
    ulong m_symbols_at;
    ulong m_read_at;
    bool m_was_full;
    long m_full_times;
    long m_skipped_ms;
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

    void NoteOffset(const int offset_s) {
        if(offset_s == m_offset_s)
            return;
        m_former_offset_s = m_offset_s;
        m_offset_s = offset_s;
        m_offset_since = GetTickCount64();
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

    void AddSymbol(const string symbol) {
        for(int i = 0; i < ArraySize(m_cursors); i++)
            if(m_cursors[i].Name() == symbol)
                return;
        long now_s = (long)TimeTradeServer();
        long begin_s = now_s - (long)m_settings.first_hours * 3600;
        long oldest_msc = (now_s - (long)m_settings.catch_up_hours * 3600) * 1000;
        CursorMark mark;
        mark.symbol = symbol;
        mark.msc = begin_s * 1000;
        mark.taken = 0;
        mark.until = 0;
        mark.bar_time = begin_s - begin_s % MINUTE_S - MINUTE_S;
        if(m_ring.FindMark(symbol, mark) && mark.msc < oldest_msc) {
            Print(symbol, ": ticks before ", TimeToString((datetime)(oldest_msc / 1000)), " are left out, ",
                  IntegerToString(m_settings.catch_up_hours), " hours are caught up (CatchUpHours).");
            m_skipped_ms += oldest_msc - mark.msc;
            mark.msc = oldest_msc;
            mark.taken = 0;
            mark.until = 0;
        }
        if(mark.bar_time < oldest_msc / 1000 - MINUTE_S)
            mark.bar_time = oldest_msc / 1000 - MINUTE_S;
        int count = ArraySize(m_cursors);
        ArrayResize(m_cursors, count + 1, 64);
        ArrayResize(m_facts, count + 1, 64);
        ArrayResize(m_bar_times, count + 1, 64);
        m_cursors[count].Begin(symbol, mark.msc, mark.taken, mark.until);
        ReadFacts(symbol, m_facts[count]);
        m_bar_times[count] = mark.bar_time;
    }

    void AddSymbols() {
        int before = ArraySize(m_cursors);
        FindSymbols();
        int added = ArraySize(m_cursors) - before;
        if(added == 0)
            return;
        // A restart before the first tick of a symbol must begin where this run began.
        CursorMark marks[];
        ArrayResize(marks, added);
        for(int k = 0; k < added; k++)
            MarkOf(before + k, m_cursors[before + k].Msc(), m_cursors[before + k].Taken(), marks[k]);
        m_ring.Remember(marks);
    }

    void FindSymbols() {
        if(m_settings.symbols == "") {
            for(int i = 0; i < SymbolsTotal(true); i++)
                AddSymbol(SymbolName(i, true));
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

    void MarkOf(const int i, const long msc, const int taken, CursorMark &mark) const {
        mark.symbol = m_cursors[i].Name();
        mark.msc = msc;
        mark.taken = taken;
        mark.until = m_cursors[i].Until();
        mark.bar_time = m_bar_times[i];
    }

    bool Keep(const int kind, const int items, const string text, const CursorMark &marks[]) {
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

    // Reads new ticks of all symbols into one request and keeps it. Whether there are more.
    bool ReadTicks(const ulong began) {
        int symbols = ArraySize(m_cursors);
        int most = MostTicks();
        int items = 0;
        bool more = false;
        int touched[];
        int offset_s = NO_OFFSET;
        string text = "";
        MqlTick ticks[];
        for(int n = 0; n < symbols && items < most; n++) {
            // The first CopyTicks of a symbol may wait for the broker: the others have their turn next time.
            if(GetTickCount64() - began > (ulong)m_settings.timeout_ms)
                break;
            int i = (m_turn + n) % symbols;
            int first = 0;
            int end = 0;
            int room = most < READ_TICKS ? most : READ_TICKS;
            if(!m_cursors[i].Read(ticks, room, (long)TimeTradeServer() * 1000, first, end))
                continue;
            int of_ticks_s = OffsetAt(ticks[first].time_msc);
            if(items == 0) {
                offset_s = of_ticks_s;
                text = BodyHead("ticks", offset_s);
            } else if(of_ticks_s != offset_s) {
                more = true; // a request says one offset
                continue;
            }
            more = more || m_cursors[i].HasMore();
            for(int k = first; k < end; k++) {
                if(items > 0)
                    text += ",\n";
                text += TickItem(ticks[k], m_facts[i]);
                items++;
            }
            int count = ArraySize(touched);
            ArrayResize(touched, count + 1, 64);
            touched[count] = i;
        }
        if(symbols > 0)
            m_turn = (m_turn + 1) % symbols;
        if(items == 0)
            return false;
        CursorMark marks[];
        ArrayResize(marks, ArraySize(touched));
        for(int k = 0; k < ArraySize(touched); k++)
            MarkOf(touched[k], m_cursors[touched[k]].NextMsc(), m_cursors[touched[k]].NextTaken(), marks[k]);
        if(!Keep(RECORD_TICKS, items, text + BODY_END, marks))
            return false;
        for(int k = 0; k < ArraySize(touched); k++)
            m_cursors[touched[k]].Advance();
        return more || items >= most;
    }

    // Reads the bars that closed since the last time. A bar is closed when the terminal has begun the next.
    void ReadBars(const ulong began) {
        int items = 0;
        int offset_s = NO_OFFSET;
        string text = "";
        CursorMark marks[];
        int touched[];
        MqlRates rates[];
        for(int i = 0; i < ArraySize(m_cursors); i++) {
            long minutes = ((long)TimeTradeServer() - m_bar_times[i]) / MINUTE_S;
            if(minutes < 2)
                continue;
            if(items >= BARS_OF_REQUEST || GetTickCount64() - began > (ulong)m_settings.timeout_ms) {
                m_bars_at = 0; // the others at the next turn
                break;
            }
            int copied = CopyRates(m_cursors[i].Name(), PERIOD_M1, 1, (int)MathMin(minutes, (long)MOST_BARS), rates);
            long newest = m_bar_times[i];
            for(int k = 0; k < copied; k++) {
                if((long)rates[k].time <= newest)
                    continue;
                int of_bar_s = OffsetAt(((long)rates[k].time + MINUTE_S) * 1000);
                if(items == 0) {
                    offset_s = of_bar_s;
                    text = BodyHead("items", offset_s);
                } else if(of_bar_s != offset_s) {
                    m_bars_at = 0; // a request says one offset: the others at the next turn
                    break;
                } else
                    text += ",\n";
                text += BarItem(rates[k], m_facts[i]);
                items++;
                newest = (long)rates[k].time;
            }
            if(newest == m_bar_times[i])
                continue;
            int count = ArraySize(marks);
            ArrayResize(marks, count + 1, 64);
            ArrayResize(touched, count + 1, 64);
            MarkOf(i, m_cursors[i].Msc(), m_cursors[i].Taken(), marks[count]);
            marks[count].bar_time = newest;
            touched[count] = i;
        }
        if(items == 0 || !Keep(RECORD_BARS, items, text + BODY_END, marks))
            return;
        for(int k = 0; k < ArraySize(touched); k++)
            m_bar_times[touched[k]] = marks[k].bar_time;
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

    // Reads what is new. Whether there may be more at once. `going_on` says that the last reading of this turn left some.
    bool Read(const ulong began, const bool going_on) {
        int offset_s = 0;
        NoteFull();
        if(m_was_full || TerminalInfoInteger(TERMINAL_CONNECTED) == 0 || !UtcOffset(offset_s))
            return false;
        if(m_ring.Waiting() > 0 && !going_on && !Due(m_read_at, BUSY_READ_MS))
            return false;
        if(Due(m_symbols_at, SYMBOLS_EVERY_MS))
            AddSymbols();
        NoteOffset(offset_s);
        bool more = ReadTicks(began);
        if(m_settings.send_bars && Due(m_bars_at, BARS_EVERY_MS))
            ReadBars(began);
        return more;
    }

    void Forget() {
        m_started = false;
        ArrayResize(m_cursors, 0);
        ArrayResize(m_facts, 0);
        ArrayResize(m_bar_times, 0);
        m_turn = 0;
        m_offset_s = NO_OFFSET;
        m_former_offset_s = NO_OFFSET;
        m_offset_since = 0;
        m_bars_at = 0;
        m_symbols_at = 0;
        m_read_at = 0;
        m_was_full = false;
        m_full_times = 0;
        m_skipped_ms = 0;
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

    // One turn: read, keep, send. Takes no longer than TimeoutMs, but for CopyTicks, which waits while the terminal
    // fetches a symbol's history for the first time.
    void Turn() {
        if(!m_started && !Start())
            return;
        ulong began = GetTickCount64();
        bool more = false;
        do {
            m_outbox.Drain(m_ring, m_sender, began, m_settings.timeout_ms);
            if((GetTickCount64() - began) * 2 > (ulong)m_settings.timeout_ms)
                return;
            more = Read(began, more);
        } while(more);
        m_outbox.Drain(m_ring, m_sender, began, m_settings.timeout_ms);
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
                Print("The ring in MQL5\\Files\\", folder, " cannot be opened. Does another chart run DataCollectorPRO? ",
                      "One is enough for all symbols. Else: is the disk full?");
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

    // How it stands, for the chart.
    string Status() const {
        string text = IntegerToString(ArraySize(m_cursors)) + " symbols, " + IntegerToString(m_outbox.SentTicks()) +
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
        int waiting = 0;
        for(int i = 0; i < ArraySize(m_cursors); i++)
            if(m_cursors[i].Waiting())
                waiting++;
        if(waiting > 0)
            text += ", history of " + IntegerToString(waiting) + " symbols is on its way";
        if(m_skipped_ms > 0)
            text += ", " + IntegerToString(m_skipped_ms / 60000) + " minutes left out at the start";
        return "DataCollectorPRO: " + text + "\n" + m_sender.Trouble();
    }
};

#endif
