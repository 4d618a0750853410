// What the server is told besides ticks, by `POST /fills`: which of the ranges that it wanted were sent or cannot be, and
// when symbols are quoted. Ticks never wait for it.

#ifndef TICKPIPE_FILL_REPORTS_MQH
#define TICKPIPE_FILL_REPORTS_MQH

#include "market_reader.mqh"
#include "sender.mqh"
#include "wanted_ranges.mqh"

// Reports that wait; with so many nothing more is filled.
#define MOST_REPORTS 64
// Pause between two requests, and longest wait for an answer (ms).
#define REPORT_EVERY_MS 1000
#define REPORT_TIMEOUT_MS 1000
// Quote sessions of a request, about, and how often all are sent (ms).
#define SESSIONS_OF_REQUEST 500
#define SESSIONS_EVERY_MS 86400000
// Sessions of a day, more than any broker has.
#define MOST_SESSIONS_OF_DAY 24
#define MINUTES_OF_DAY 1440
// Of an error's text, so much is said.
#define MOST_ERROR_TEXT 200

class FillReports {
private:
    string m_reports[];
    int m_failures;
    ulong m_not_before;
    // Symbols whose sessions were sent, and when the first of them was.
    int m_told;
    ulong m_told_at;

    // Sends one request; whether it need not be sent again.
    bool Send(Sender &sender, const string text, const int items, const int left_ms) {
        char body[];
        ToUtf8(text, body);
        bool is_done = sender.PostAside("/fills", body, items, MathMin(REPORT_TIMEOUT_MS, left_ms)) != POST_LATER;
        m_failures = is_done ? 0 : m_failures + 1;
        m_not_before = GetTickCount64() + (ulong)(is_done ? REPORT_EVERY_MS : RetryWait(m_failures));
        return is_done;
    }

    // The sessions of one symbol, by the broker's clock; how many.
    int SessionsOf(const string symbol, string &text) const {
        int found = 0;
        for(int day = 0; day < 7 && !IsStopped(); day++)
            for(int n = 0; n < MOST_SESSIONS_OF_DAY && !IsStopped(); n++) {
                datetime from = 0;
                datetime to = 0;
                if(!SymbolInfoSessionQuote(symbol, (ENUM_DAY_OF_WEEK)day, (uint)n, from, to))
                    break;
                // Their dates mean nothing; midnight is also the end of a day.
                long first = (long)from % DAY_S / MINUTE_S;
                long end = ((long)to % DAY_S + MINUTE_S - 1) / MINUTE_S;
                if(end == 0)
                    end = MINUTES_OF_DAY;
                if(end <= first)
                    continue;
                if(text != "")
                    text += ",\n";
                text += "{\"symbol\":" + JsonText(symbol) + ",\"day\":" + IntegerToString(day) +
                        ",\"from\":" + IntegerToString(first) + ",\"to\":" + IntegerToString(end) + "}";
                found++;
            }
        return found;
    }

    void SendSessions(Sender &sender, const MarketReader &reader, const int offset_s, const int left_ms) {
        if(m_told_at != 0 && GetTickCount64() - m_told_at >= SESSIONS_EVERY_MS) {
            m_told = 0;
            m_told_at = 0;
        }
        string text = "";
        int items = 0;
        int end = m_told;
        for(; end < reader.Count() && items < SESSIONS_OF_REQUEST && !IsStopped(); end++)
            items += SessionsOf(reader.Name(end), text);
        if(IsStopped())
            return; // not all of the last one's
        if(items > 0 && !Send(sender, BodyHead("sessions", offset_s) + text + BODY_END, items, left_ms))
            return;
        if(end > m_told && m_told_at == 0)
            m_told_at = GetTickCount64();
        m_told = end;
    }

public:
    FillReports() { Begin(); }

    void Begin() {
        ArrayResize(m_reports, 0);
        m_failures = 0;
        m_not_before = 0;
        m_told = 0;
        m_told_at = 0;
    }

    bool IsFull() const { return ArraySize(m_reports) >= MOST_REPORTS; }

    // A range is filled, or, with an error, cannot be.
    void Add(const WantedRange &range, const int ticks, const string error) {
        int count = ArraySize(m_reports);
        ArrayResize(m_reports, count + 1, MOST_REPORTS);
        m_reports[count] = "{\"symbol\":" + JsonText(range.symbol) + ",\"from\":" + IntegerToString(range.from_msc) +
                           ",\"to\":" + IntegerToString(range.to_msc);
        if(error == "")
            m_reports[count] += ",\"ticks\":" + IntegerToString(ticks) + "}";
        else
            m_reports[count] += ",\"error\":" + JsonText(StringSubstr(error, 0, MOST_ERROR_TEXT)) + "}";
    }

    // Sends what there is to report, or the sessions that were not sent yet, within the time that is left. `offset_s` is what
    // requests say of the broker's clock now.
    void Send(Sender &sender, const MarketReader &reader, const int offset_s, const int left_ms) {
        if(m_not_before > GetTickCount64())
            return;
        int count = ArraySize(m_reports);
        if(count == 0) {
            SendSessions(sender, reader, offset_s, left_ms);
            return;
        }
        string text = "";
        for(int i = 0; i < count; i++) {
            if(i > 0)
                text += ",\n";
            text += m_reports[i];
        }
        if(Send(sender, BodyHead("fills", NO_OFFSET) + text + BODY_END, count, left_ms))
            ArrayResize(m_reports, 0, MOST_REPORTS);
    }
};

#endif
