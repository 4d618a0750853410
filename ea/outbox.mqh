// Sends what waits in the ring, oldest first and one request at a time, and splits what a server finds too large.

#ifndef TICKPIPE_OUTBOX_MQH
#define TICKPIPE_OUTBOX_MQH

#include "tick_ring.mqh"
#include "sender.mqh"

// A record that cannot be read so often is given up: somebody deleted the file.
#define MOST_READ_FAILURES 240

// After so many requests that were taken a server is tried with twice as many items as it once found too large.
#define TAKEN_BEFORE_GROWTH 100
// A size beyond that is no limit any more.
#define MOST_LIMIT 20000

class Outbox {
private:
    string m_trace;
    // The oldest request, and which of its items are sent next.
    long m_number;
    int m_kind;
    int m_items;
    char m_body[];
    int m_starts[];
    int m_from;
    int m_count;
    // Most items of a request that was not too large for the server; 0 while none was.
    int m_limit;
    int m_taken_in_row;
    int m_read_failures;
    long m_sent_ticks;
    long m_sent_bars;
    long m_filled;
    long m_refused;
    long m_refused_fills;
    long m_lost;

    // Has the oldest request in memory.
    bool Load(TickRing &ring) {
        if(ring.HeadNumber() == m_number)
            return true;
        if(ring.ReadHead(m_number, m_kind, m_items, m_body)) {
            m_read_failures = 0;
            m_from = 0;
            ArrayResize(m_starts, 0);
            ChooseCount();
            return true;
        }
        m_number = -1;
        if(ring.IsHeadHeld())
            return false; // by a backup or a scanner, and read when that has ended
        m_read_failures++;
        if(m_read_failures >= MOST_READ_FAILURES) {
            Print("A request could not be read back from the disk and is lost. Was a file in MQL5\\Files deleted?");
            m_lost++;
            m_read_failures = 0;
            ring.Confirm();
        }
        return false;
    }

    PostOutcome PostPart(Sender &sender, const int timeout_ms) {
        string path = m_kind == RECORD_BARS ? "/ingest" : "/ingest/tick";
        string trace = m_trace + "-" + IntegerToString(m_number);
        bool is_fill = m_kind == RECORD_FILL;
        if(m_count == m_items)
            return sender.Post(path, is_fill, trace, m_body, m_items, timeout_ms);
        char part[];
        PartOf(m_body, m_starts, m_from, m_count, part);
        return sender.Post(path, is_fill, trace, part, m_count, timeout_ms);
    }

    // Counts what became of the items of the newest request, of which the server refused some.
    void Count(const PostOutcome outcome, const long refused_items) {
        if(outcome != POST_TAKEN)
            m_refused += m_count;
        else if(m_kind == RECORD_BARS)
            m_sent_bars += m_count;
        else if(m_kind == RECORD_FILL)
            m_filled += m_count;
        else
            m_sent_ticks += m_count;
        if(m_kind == RECORD_FILL)
            m_refused_fills += outcome == POST_TAKEN ? refused_items : m_count;
    }

    // How many items from m_from on are sent next.
    void ChooseCount() {
        m_count = m_items - m_from;
        if(m_limit > 0 && m_count > m_limit)
            Part(2 * m_limit < m_count ? 2 * m_limit : m_count);
    }

    // The first half or so of the next `count` items.
    void Part(const int count) {
        if(ArraySize(m_starts) == 0)
            ItemStarts(m_body, m_starts);
        m_count = SplitPoint(m_body, m_starts, m_from, count) - m_from;
    }

    // False when one item alone is too large.
    bool Halve() {
        if(m_count < 2)
            return false;
        Part(m_count);
        m_limit = m_count;
        m_taken_in_row = 0;
        return true;
    }

    void Next(TickRing &ring) {
        m_from += m_count;
        if(m_from < m_items) {
            ChooseCount();
            return;
        }
        ring.Confirm();
        m_number = -1;
    }

public:
    Outbox() { Begin("ea"); }

    // `trace` is how the trace of each request begins.
    void Begin(const string trace) {
        m_trace = trace;
        m_number = -1;
        m_kind = 0;
        m_items = 0;
        m_from = 0;
        m_count = 0;
        m_limit = 0;
        m_taken_in_row = 0;
        m_read_failures = 0;
        m_sent_ticks = 0;
        m_sent_bars = 0;
        m_filled = 0;
        m_refused = 0;
        m_refused_fills = 0;
        m_lost = 0;
    }

    long SentTicks() const { return m_sent_ticks; }
    long SentBars() const { return m_sent_bars; }
    // Ticks that a server lacked and has now, and those of them that it refused.
    long Filled() const { return m_filled; }
    long RefusedFills() const { return m_refused_fills; }
    // Items that a server refused for good, and requests that could not be read back.
    long Refused() const { return m_refused; }
    long Lost() const { return m_lost; }
    // Most items that a request should have; 0 when nothing is known.
    int Limit() const { return m_limit; }

    // Sends until the ring is empty, nobody takes anything or less than half of `budget_ms` is left. No request may take
    // longer than what is left, so that the call ends within `budget_ms`.
    void Drain(TickRing &ring, Sender &sender, const ulong began, const int budget_ms) {
        while(ring.Waiting() > 0 && !IsStopped()) {
            int left_ms = budget_ms - (int)(GetTickCount64() - began);
            if(left_ms * 2 < budget_ms || !Load(ring))
                return;
            int refused_before = sender.RefusedItems();
            PostOutcome outcome = PostPart(sender, left_ms);
            if(outcome == POST_LATER)
                return;
            if(outcome == POST_TOO_LARGE && Halve())
                continue;
            m_taken_in_row++;
            if(m_limit > 0 && m_taken_in_row % TAKEN_BEFORE_GROWTH == 0)
                m_limit = m_limit < MOST_LIMIT ? m_limit * 2 : 0;
            Count(outcome, sender.RefusedItems() - refused_before);
            Next(ring);
        }
    }
};

#endif
