// The collector: reads new ticks and closed bars of all symbols, stores them in the ring, sends what is in the ring.
//
// These files are MQL5 in the part of the language that C++ has too, so that the project's tests compile and run them
// (tests/integration/ea): no pointers, no references but parameters, no member initialised in place.

#ifndef TICKPIPE_TICK_COLLECTOR_MQH
#define TICKPIPE_TICK_COLLECTOR_MQH

#include "outbox.mqh"
#include "filler.mqh"
#include "market_reader.mqh"

class TickCollector {
private:
    CollectorSettings m_settings;
    TickRing m_ring;
    Sender m_sender;
    Outbox m_outbox;
    bool m_started;
    MarketReader m_reader;
    Filler m_filler;
    // The broker and the account that this run is for.
    string m_server;
    long m_login;
    long m_lost;
    bool m_was_full;
    long m_full_times;
    bool m_disk_said;

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

    int MostTicks() const {
        int limit = m_outbox.Limit();
        return limit > 0 && limit < m_settings.max_ticks ? limit : m_settings.max_ticks;
    }

    void NoteFull() {
        bool full = m_ring.IsFull();
        if(full && !m_was_full) {
            m_full_times++;
            Print("The ring is full (RingMegabytes): newer ticks wait in the terminal's history until a server takes the older.");
        }
        m_was_full = full;
    }

    // A record that could not be read back from the disk is lost: its ticks are read from the terminal again.
    void NoteLost() {
        if(m_outbox.Lost() > m_lost)
            m_reader.SendAgain();
        m_lost = m_outbox.Lost();
    }

    void Forget() {
        m_started = false;
        m_server = "";
        m_login = 0;
        m_lost = 0;
        m_was_full = false;
        m_full_times = 0;
        m_disk_said = false;
    }

    // A service goes on when the user logs in elsewhere: what was taken belongs to the other ring.
    void NoteAccount() {
        string server = Plain(AccountInfoString(ACCOUNT_SERVER));
        if(!m_started || server == "" || (server == m_server && AccountInfoInteger(ACCOUNT_LOGIN) == m_login))
            return;
        Print("The account has changed; its ring is opened.");
        m_ring.Close();
        Forget();
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
        NoteAccount();
        if(!m_started && !Start())
            return;
        ulong began = GetTickCount64();
        bool more = false;
        do {
            m_outbox.Drain(m_ring, m_sender, began, m_settings.timeout_ms);
            NoteLost();
            if((GetTickCount64() - began) * 2 > (ulong)m_settings.timeout_ms || IsStopped())
                return;
            NoteFull();
            more = !m_was_full && m_reader.Read(m_ring, MostTicks(), began, more);
        } while(more && !IsStopped());
        m_outbox.Drain(m_ring, m_sender, began, m_settings.timeout_ms);
        NoteLost();
        int left_ms = m_settings.timeout_ms - (int)(GetTickCount64() - began);
        if(!m_settings.fill_gaps || m_ring.Waiting() > 0 || left_ms * 2 < m_settings.timeout_ms || IsStopped())
            return;
        m_filler.Turn(m_reader, m_ring, m_sender, m_outbox, MostTicks(), left_ms);
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
        m_reader.Begin(m_settings);
        m_filler.Begin(m_settings);
        string folder = "DataCollectorPRO\\" + server;
        if(!m_ring.Open(folder, m_settings.ring_megabytes)) {
            if(!m_disk_said)
                Print("The ring in Common\\Files\\", folder, " cannot be opened. Does another chart or terminal run ",
                      "DataCollectorPRO? One is enough for all symbols. Else: is the disk full, or has another program its files?");
            m_disk_said = true;
            m_ring.Close();
            return false;
        }
        m_disk_said = false;
        m_started = true;
        m_server = server;
        m_login = AccountInfoInteger(ACCOUNT_LOGIN);
        if(m_ring.Waiting() > 0)
            Print(IntegerToString(m_ring.Waiting()), " requests of the last run wait in the ring and are sent first.");
        return true;
    }

    void End() { m_ring.Close(); }

    // How it stands, for the chart.
    string Status() const {
        string text = IntegerToString(m_reader.Count()) + " symbols, " + IntegerToString(m_outbox.SentTicks()) +
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
        if(m_outbox.Filled() > 0)
            text += ", " + IntegerToString(m_outbox.Filled()) + " ticks filled";
        if(m_reader.LateTicks() > 0)
            text += ", " + IntegerToString(m_reader.LateTicks()) + " ticks came late";
        if(m_reader.LeftOut() > 0)
            text += ", " + IntegerToString(m_reader.LeftOut() / 60000) + " minutes left out at the start";
        return "DataCollectorPRO: " + text + "\n" + m_sender.Trouble() + m_reader.Trouble();
    }
};

#endif
