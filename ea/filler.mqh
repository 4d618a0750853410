// Sends what a server lacks: it names ranges in its answers, and their ticks are read from the terminal's history again,
// newest first, one piece a turn and behind what is new.

#ifndef TICKPIPE_FILLER_MQH
#define TICKPIPE_FILLER_MQH

#include "broker_clock.mqh"
#include "fill_reports.mqh"
#include "outbox.mqh"

// A reading counts when another one, so much later, gave the same: the terminal may still load its history (ms).
#define FILL_AGREE_MS 2000
// So many readings that are not whole, and the server is told; it asks again after some hours.
#define FILL_TRIES 5
// After a call that waited for the broker, so many times as long goes to what is new.
#define FILL_PAUSES 10
// Ranges of symbols that this program does not collect are left to others for so long (ms).
#define LEFT_TO_OTHERS_MS 600000

class Filler {
private:
    CollectorSettings m_settings;
    ClockHistory m_clock;
    WantedRanges m_wanted;
    FillReports m_reports;
    ulong m_not_before;
    // The range that is being sent, its ticks, and which of them is next.
    bool m_sending;
    WantedRange m_range;
    MqlTick m_ticks[];
    int m_next;
    int m_found;
    // Why they may not be all; empty when they are.
    string m_doubt;
    int m_said_s;
    // What the outbox said when it began.
    long m_lost;
    long m_refused;

    // The offset of the broker's clock over a range, and what requests with its ticks say; false where it is not known.
    bool OffsetsOver(const WantedRange &range, int &offset_s) {
        offset_s = m_settings.fixed_offset_s;
        m_said_s = offset_s;
        if(m_settings.clock == CLOCK_FIXED)
            return true;
        bool is_known = m_clock.OffsetOver(range.from_msc, range.to_msc, offset_s);
        m_said_s = m_settings.clock == CLOCK_SERVER ? NO_OFFSET : offset_s;
        return is_known;
    }

    void Report(const WantedRange &range, const int ticks, const string error) {
        m_reports.Add(range, ticks, error);
        m_wanted.Reported(range);
        if(error != "")
            Print(range.symbol, ": the server lacks ticks from ", TimeToString((datetime)(range.from_msc / 1000)),
                  " (UTC), which cannot be sent: ", error, ".");
    }

    // A reading is not whole; whether there are tries left, `most` in all.
    bool MayTryAgain(const int at, WantedRange &range, const int most) {
        range.failures++;
        range.not_before = GetTickCount64() + (ulong)RetryWait(range.failures);
        m_wanted.Note(at, range);
        return range.failures < most;
    }

    // Whether what two readings gave is sent, by the terminal's bars of that time.
    bool IsSent(const int at, WantedRange &range, const BarsSay say, const int copied) {
        m_doubt = "";
        if(say == BARS_AGREE)
            return true;
        // The broker may count its ticks otherwise.
        if(say == BARS_COUNT_MORE)
            return !MayTryAgain(at, range, SHORT_ANSWERS);
        if(MayTryAgain(at, range, FILL_TRIES))
            return false;
        if(say == BARS_WITHOUT_TICKS)
            m_doubt = "the terminal has bars of it, but not all the ticks";
        if(copied > 0)
            return true;
        Report(range, 0, m_doubt != "" ? m_doubt : "the terminal has no ticks of it, and its bars cannot be read");
        return false;
    }

    // Reads one range; whether its ticks are ready to be sent.
    bool Read(const int at, WantedRange &range, const long taken_msc, const int offset_s) {
        long from_msc = range.from_msc + (long)offset_s * 1000;
        long to_msc = range.to_msc + (long)offset_s * 1000;
        ulong called = GetTickCount64();
        ResetLastError();
        int copied = CopyTicksRange(range.symbol, m_ticks, COPY_TICKS_ALL, (ulong)from_msc, (ulong)(to_msc - 1));
        int error = GetLastError();
        bool is_whole = copied >= 0 && error == 0;
        ulong sum = 0;
        for(int i = 0; i < copied && is_whole; i++)
            sum += TickHash(m_ticks[i]);
        bool agrees = is_whole && range.count == copied && range.sum == sum;
        BarsSay say = agrees ? WhatBarsSay(range.symbol, from_msc, to_msc, m_ticks, copied) : BARS_UNKNOWN;
        ulong took = GetTickCount64() - called;
        if(took >= SLOW_CALL_MS)
            m_not_before = GetTickCount64() + took * FILL_PAUSES;
        range.count = is_whole ? copied : -1;
        range.sum = sum;
        if(!is_whole) {
            error = error != 0 ? error : ERR_HISTORY_NOT_FOUND;
            if(!MayTryAgain(at, range, FILL_TRIES))
                Report(range, 0, ErrorMeaning(error) + " (" + IntegerToString(error) + ")");
            return false;
        }
        if(agrees)
            return IsSent(at, range, say, copied) && Hold(taken_msc, copied);
        range.not_before = GetTickCount64() + FILL_AGREE_MS;
        m_wanted.Note(at, range);
        return false;
    }

    // Holds the ticks that were read ready to be sent; what is behind the cursor comes by itself.
    bool Hold(const long taken_msc, const int copied) {
        m_found = copied;
        int count = 0;
        for(int i = 0; i < copied; i++)
            if(m_ticks[i].time_msc <= taken_msc) {
                m_ticks[count] = m_ticks[i];
                count++;
            }
        ArrayResize(m_ticks, count);
        return true;
    }

    // Looks at one range; whether that was all for this turn.
    bool Try(const int at, const MarketReader &reader, const Outbox &outbox) {
        WantedRange range = m_wanted.At(at);
        int i = reader.Find(range.symbol);
        int offset_s = 0;
        if(range.not_before > GetTickCount64() || range.to_msc > (long)TimeGMT() * 1000)
            return false;
        if(i < 0) {
            if(GetTickCount64() - range.since >= LEFT_TO_OTHERS_MS)
                Report(range, 0, "this program does not collect the symbol");
            return false;
        }
        if(!OffsetsOver(range, offset_s)) {
            Report(range, 0, "the broker's clock may have been another one then, or showed that time twice");
            return true;
        }
        long taken_msc = reader.TakenUpTo(i, range.to_msc + (long)offset_s * 1000 - 1);
        if(taken_msc == 0)
            return false;
        if(Read(at, range, taken_msc, offset_s)) {
            m_sending = true;
            m_range = range;
            m_next = 0;
            m_lost = outbox.Lost();
            m_refused = outbox.RefusedFills();
        }
        return true;
    }

    // Stores the next piece of the range, whole milliseconds of at most `most` ticks or so; it ends where the time goes back.
    void SendPiece(MarketReader &reader, TickRing &ring, const int most) {
        int count = ArraySize(m_ticks);
        int end = m_next + 1;
        while(end < count && end < m_next + most && m_ticks[end].time_msc >= m_ticks[end - 1].time_msc)
            end++;
        while(end < count && m_ticks[end].time_msc == m_ticks[end - 1].time_msc)
            end++;
        MqlTick piece[];
        ArrayCopy(piece, m_ticks, 0, m_next, end - m_next);
        int i = reader.Find(m_range.symbol);
        if(!reader.GoBack(i, piece)) {
            m_sending = false;
            Report(m_range, 0, "its first millisecond is the newest that was sent");
            return;
        }
        // What makes it go back may be the newest: that is a request of its own, and the piece follows in the next turn.
        int first = 1;
        while(first < ArraySize(piece) && piece[first].time_msc >= piece[first - 1].time_msc)
            first++;
        bool is_all = first == ArraySize(piece);
        ArrayResize(piece, first);
        if(reader.StoreFill(ring, i, m_said_s, piece) && is_all)
            m_next = end;
    }

    // Everything of the range was sent.
    void Finish(const Outbox &outbox) {
        m_sending = false;
        if(outbox.Lost() != m_lost)
            return; // it is read again
        long refused = outbox.RefusedFills() - m_refused;
        Report(m_range, m_found, refused > 0 ? "the server refused " + IntegerToString(refused) + " of the ticks" : m_doubt);
    }

public:
    Filler() { Forget(); }

    void Begin(const CollectorSettings &settings) {
        Forget();
        m_settings = settings;
    }

    void Forget() {
        m_clock.Begin();
        m_wanted.Begin();
        m_reports.Begin();
        m_not_before = 0;
        m_sending = false;
        ClearRange(m_range);
        m_next = 0;
        m_found = 0;
        m_doubt = "";
        m_said_s = NO_OFFSET;
        m_lost = 0;
        m_refused = 0;
    }

    // One turn, when what is new is sent: reports, and then at most one reading or one request of ticks.
    void Turn(MarketReader &reader, TickRing &ring, Sender &sender, const Outbox &outbox, const int most, const int left_ms) {
        string answer;
        if(sender.TakeWanted(answer))
            m_wanted.Take(answer);
        int offset_s = 0;
        if(!reader.IsOnline() || !MeasuredOffset(offset_s))
            return;
        m_clock.Note(offset_s);
        UtcOffset(m_settings, offset_s);
        if(m_sending && m_next >= ArraySize(m_ticks))
            Finish(outbox);
        m_reports.Send(sender, reader, offset_s, left_ms);
        if(m_sending)
            SendPiece(reader, ring, most);
        if(m_sending || m_reports.IsFull() || m_not_before > GetTickCount64())
            return;
        for(int at = 0; at < m_wanted.Count() && !IsStopped(); at++)
            if(Try(at, reader, outbox))
                return;
    }
};

#endif
