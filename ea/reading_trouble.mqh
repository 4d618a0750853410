// Reads times of one symbol whole; what is wrong with its reading, and when it is tried again.

#ifndef TICKPIPE_READING_TROUBLE_MQH
#define TICKPIPE_READING_TROUBLE_MQH

// First and longest wait after a reading that failed (ms); between them it doubles. Each may cost the others 45 s.
#define FIRST_RETRY_MS 1000
#define LONGEST_RETRY_MS 600000
// How often a symbol is tried that the broker does not know or the Market Watch does not show (ms).
#define RETIRED_RETRY_MS 60000
// So many answers in a row with fewer ticks than were there before are not believed: the terminal may still load them. After
// that the broker has taken ticks back.
#define SHORT_ANSWERS 10
// Ours: an answer without an error that has fewer ticks than were there before.
#define ERROR_FEWER_TICKS (-2)

string ErrorMeaning(const int error) {
    switch(error) {
    case ERR_MARKET_UNKNOWN_SYMBOL:
        return "the broker does not know it";
    case ERR_MARKET_NOT_SELECTED:
        return "it is not in the Market Watch";
    case ERR_HISTORY_TIMEOUT:
        return "its history is on its way";
    case ERR_HISTORY_NOT_FOUND:
        return "the terminal has no history of it";
    case ERROR_FEWER_TICKS:
        return "the terminal gives fewer ticks than before";
    }
    return "the terminal's answer is not whole";
}

// How long to wait after so many failures in a row (ms).
int RetryWait(const int failures) {
    int wait_ms = FIRST_RETRY_MS;
    for(int n = 1; n < failures && wait_ms < LONGEST_RETRY_MS; n++)
        wait_ms *= 2;
    return MathMin(wait_ms, LONGEST_RETRY_MS);
}

class ReadingTrouble {
private:
    string m_symbol;
    int m_error;
    int m_failures;
    ulong m_not_before;
    int m_short_answers;

    bool IsRetired() const { return m_error == ERR_MARKET_UNKNOWN_SYMBOL || m_error == ERR_MARKET_NOT_SELECTED; }

public:
    ReadingTrouble() { Begin(""); }

    void Begin(const string symbol) {
        m_symbol = symbol;
        m_error = 0;
        m_failures = 0;
        m_not_before = 0;
        m_short_answers = 0;
    }

    bool Is() const { return m_failures > 0; }
    bool MayTry() const { return m_not_before <= GetTickCount64(); }
    string Text() const { return m_error == 0 ? "" : m_symbol + ": " + ErrorMeaning(m_error) + " (" + IntegerToString(m_error) + ")"; }

    // A reading failed; the next is tried later.
    void Failed(const int error) {
        if(error != m_error)
            Print(m_symbol, ": error ", IntegerToString(error), ", ", ErrorMeaning(error),
                  ". It is tried again now and then; the other symbols go on.");
        m_error = error;
        m_failures++;
        m_not_before = GetTickCount64() + (ulong)(IsRetired() ? RETIRED_RETRY_MS : RetryWait(m_failures));
    }

    void Succeeded() {
        if(m_error != 0)
            Print(m_symbol, ": is read again.");
        m_error = 0;
        m_failures = 0;
        m_not_before = 0;
    }

    // All ticks from one time to another; false when the answer is not whole, or has fewer than were there before.
    bool CopyRange(const long from_msc, const long to_msc, const long before, MqlTick &ticks[], int &copied) {
        ResetLastError();
        copied = CopyTicksRange(m_symbol, ticks, COPY_TICKS_ALL, (ulong)from_msc, (ulong)to_msc);
        int error = GetLastError();
        if(copied >= 0 && error == 0) {
            if(copied >= before || m_short_answers >= SHORT_ANSWERS) {
                m_short_answers = 0;
                Succeeded();
                return true;
            }
            m_short_answers++;
            error = ERROR_FEWER_TICKS;
        }
        Failed(error != 0 ? error : ERR_HISTORY_NOT_FOUND);
        return false;
    }
};

#endif
