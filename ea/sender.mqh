// One request to the relay or the server, what the answer means, and when to try again.

#ifndef TICKPIPE_SENDER_MQH
#define TICKPIPE_SENDER_MQH

#include "settings.mqh"

// First and longest wait after no answer (ms); between them it doubles.
#define FIRST_WAIT_MS 1000
#define LONGEST_WAIT_MS 30000
// Retry-After beyond that is not believed (ms).
#define MOST_RETRY_AFTER_MS 300000
// How often an address with a wrong path or a URL that MetaTrader does not allow is tried (ms).
#define WRONG_ADDRESS_WAIT_MS 10000
// So many refusals of the key in a row raise the alert; one alone may be of a proxy that stood between for a moment.
#define REFUSALS_BEFORE_ALERT 3
// Of an answer, at most so much is read: ours have some kilobytes.
#define MOST_ANSWER_BYTES 65536
// Of the account's hash, so much is sent: enough to tell accounts apart (bytes).
#define ACCOUNT_BYTES 6

// WebRequest's errors (MQL5: "Codes of Runtime Errors").
#define ERROR_NOT_ALLOWED 4014
#define ERROR_INVALID_ADDRESS 5200

enum PostOutcome {
    // Confirmed, in part at least: forget it.
    POST_TAKEN,
    // Too large: split it.
    POST_TOO_LARGE,
    // Nothing in it can be used, now or later.
    POST_REFUSED,
    // Nobody took it yet: the very same later.
    POST_LATER
};

// An address, and why it is not used now.
struct Destination {
    string name;
    string url;
    ulong not_before;
    int failures;
    // Refusals of the key in a row.
    int refusals;
    string said;
};

// The value of a header, whatever case its name is in; empty when it is missing.
string HeaderValue(const string headers, const string name) {
    string lower = headers;
    StringToLower(lower);
    int at = StringFind("\n" + lower, "\n" + name + ":");
    if(at < 0)
        return "";
    int begin = at + StringLen(name) + 1;
    int end = StringFind(headers, "\n", begin);
    string value = StringSubstr(headers, begin, end < 0 ? -1 : end - begin);
    StringTrimLeft(value);
    StringTrimRight(value);
    return value;
}

// What stands behind `"name":` in an answer, up to the next comma or brace; only for flat, known fields.
string AnswerField(const string answer, const string name) {
    int at = StringFind(answer, "\"" + name + "\":");
    if(at < 0)
        return "";
    int begin = at + StringLen(name) + 3;
    while(StringSubstr(answer, begin, 1) == " ")
        begin++;
    bool quoted = StringSubstr(answer, begin, 1) == "\"";
    int end = begin + 1;
    while(end < StringLen(answer)) {
        ushort c = StringGetCharacter(answer, end);
        if(quoted ? c == '\"' : (c == ',' || c == '}'))
            break;
        end++;
    }
    if(!quoted)
        return StringSubstr(answer, begin, end - begin);
    return end > begin + 1 ? StringSubstr(answer, begin + 1, end - begin - 1) : "";
}

// Whether an answer is of Tickpipe and counts what was sent. Anything may answer in a server's place, a network's login
// page with 200 for example. Older relays say `queued`, without a number.
bool IsConfirmation(const int status, const string answer, const int items) {
    bool is_refusal = AnswerField(answer, "error") != "" && AnswerField(answer, "code") != "";
    if((status < 200 || status > 299) && status != 409)
        return false;
    if(StringSubstr(answer, 0, 1) != "{")
        return false;
    if(status == 409 && (is_refusal || AnswerField(answer, "duplicates") == IntegerToString(items)))
        return true;
    string received = AnswerField(answer, "received");
    if(received != "")
        return received == IntegerToString(items);
    return AnswerField(answer, "ok") == "true" && AnswerField(answer, "queued") == "true";
}

// A URL without `ending`, whatever case it is in.
string Without(const string url, const string ending) {
    int begin = StringLen(url) - StringLen(ending);
    if(begin < 1)
        return url;
    string end = StringSubstr(url, begin);
    StringToLower(end);
    return end == ending ? StringSubstr(url, 0, begin) : url;
}

// `http://HOST:PORT`, also when the whole path of an endpoint was given.
string BaseUrl(const string given) {
    string url = given;
    StringTrimLeft(url);
    StringTrimRight(url);
    while(StringLen(url) > 0 && StringSubstr(url, StringLen(url) - 1, 1) == "/")
        url = StringSubstr(url, 0, StringLen(url) - 1);
    url = Without(Without(url, "/ingest/tick"), "/ingest");
    while(StringLen(url) > 0 && StringSubstr(url, StringLen(url) - 1, 1) == "/")
        url = StringSubstr(url, 0, StringLen(url) - 1);
    return url;
}

// The account as others may know it: the number itself stays on this PC.
string AccountName(const string server) {
    string named = server + " " + IntegerToString(AccountInfoInteger(ACCOUNT_LOGIN));
    uchar text[];
    uchar key[];
    uchar hash[];
    // By its length, without the 0 at the end.
    StringToCharArray(named, text, 0, StringLen(named), CP_UTF8);
    if(CryptEncode(CRYPT_HASH_SHA256, text, key, hash) < ACCOUNT_BYTES)
        return "";
    string name = "";
    for(int i = 0; i < ACCOUNT_BYTES; i++)
        name += StringFormat("%02x", hash[i]);
    return name;
}

class Sender {
private:
    Destination m_destinations[];
    string m_headers;
    // What requests with ticks say besides.
    string m_headers_of_ticks;
    int m_refused_items;
    // The newest answer to ticks, if it names what the server lacks, and whether nobody took it yet.
    string m_wanted;
    bool m_has_wanted;

    void Add(const string name, const string given) {
        string url = BaseUrl(given);
        if(url == "")
            return;
        int count = ArraySize(m_destinations);
        ArrayResize(m_destinations, count + 1);
        m_destinations[count].name = name;
        m_destinations[count].url = url;
        m_destinations[count].not_before = 0;
        m_destinations[count].failures = 0;
        m_destinations[count].refusals = 0;
        m_destinations[count].said = "";
    }

    // A sentence for the log, once until something else is to be said of this destination.
    void Say(const int i, const string sentence) {
        if(m_destinations[i].said == sentence)
            return;
        m_destinations[i].said = sentence;
        Print(m_destinations[i].name, ": ", sentence);
    }

    void Wait(const int i, const int wait_ms) { m_destinations[i].not_before = GetTickCount64() + (ulong)wait_ms; }

    // Twice as long each time, with some chance, so that a hundred EAs do not come back at once.
    void BackOff(const int i, const string why) {
        int wait_ms = FIRST_WAIT_MS;
        for(int n = 0; n < m_destinations[i].failures && wait_ms < LONGEST_WAIT_MS; n++)
            wait_ms *= 2;
        if(wait_ms > LONGEST_WAIT_MS)
            wait_ms = LONGEST_WAIT_MS;
        m_destinations[i].failures++;
        Wait(i, wait_ms / 2 + MathRand() % (wait_ms / 2 + 1));
        Say(i, why + "; everything stays stored and is sent again.");
    }

    // Tried again like no answer: the key may be set right on the server, or the refusal be of something between.
    void KeyRefused(const int i, const string why) {
        BackOff(i, why);
        m_destinations[i].refusals++;
        if(m_destinations[i].refusals == REFUSALS_BEFORE_ALERT)
            Alert("DataCollectorPRO: ", m_destinations[i].name, ": ", why);
    }

    PostOutcome NoAnswer(const int i, const int error) {
        if(error == ERROR_NOT_ALLOWED || error == ERROR_INVALID_ADDRESS) {
            Wait(i, WRONG_ADDRESS_WAIT_MS);
            Say(i, "MetaTrader does not allow " + m_destinations[i].url + " (error " + IntegerToString(error) +
                       "). Cure: Tools > Options > Expert Advisors > Allow WebRequest for listed URL, add " +
                       m_destinations[i].url + ". Ticks stay stored meanwhile.");
        } else
            BackOff(i, "no answer from " + m_destinations[i].url + " (error " + IntegerToString(error) + ")");
        return POST_LATER;
    }

    PostOutcome Taken(const int i, const int status, const string answer) {
        m_destinations[i].failures = 0;
        m_destinations[i].refusals = 0;
        m_destinations[i].not_before = 0;
        if(status == 207) {
            m_refused_items += (int)StringToInteger(AnswerField(answer, "errors"));
            Say(i, "some items were refused: " + AnswerField(answer, "field") + ": " + AnswerField(answer, "message"));
        } else {
            if(m_destinations[i].said != "")
                Say(i, "requests are taken again.");
            m_destinations[i].said = "";
        }
        return POST_TAKEN;
    }

    PostOutcome Meaning(const int i, const int status, const string answer, const string headers, const int items) {
        if(IsConfirmation(status, answer, items))
            return Taken(i, status, answer);
        string code = AnswerField(answer, "code");
        if(status == 413 && (items > 1 || code != ""))
            return POST_TOO_LARGE;
        if((status == 401 || status == 403) && code != "") {
            KeyRefused(i, "the key is refused (" + IntegerToString(status) + ": " + AnswerField(answer, "error") +
                              "). Cure: put the right key into ApiKey, or allow this one on the server");
            return POST_LATER;
        }
        if(status == 400 && code == "VALIDATION_ERROR") {
            Say(i, "a request was refused for good: " + AnswerField(answer, "error") + " " + AnswerField(answer, "message"));
            return POST_REFUSED;
        }
        if(status == 404 || status == 405) {
            Wait(i, WRONG_ADDRESS_WAIT_MS);
            Say(i, m_destinations[i].url + " is no Tickpipe: it answers " + IntegerToString(status) +
                       ". Cure: check the URL, without a path. Ticks stay stored meanwhile.");
            return POST_LATER;
        }
        if(status < 500 && status != 408 && status != 429 && code == "") {
            BackOff(i, m_destinations[i].url + " answers " + IntegerToString(status) +
                           ", but not as Tickpipe does. Is a login page or a proxy between? Nothing counts as sent");
            return POST_LATER;
        }
        BackOff(i, m_destinations[i].url + " answers " + IntegerToString(status) + " " + AnswerField(answer, "error"));
        long retry_after_s = StringToInteger(HeaderValue(headers, "retry-after"));
        if(retry_after_s > 0)
            Wait(i, (int)MathMin(retry_after_s * 1000, (long)MOST_RETRY_AFTER_MS));
        return POST_LATER;
    }

    // The first address that may be tried now; -1 when there is none.
    int Ready() const {
        for(int i = 0; i < ArraySize(m_destinations); i++)
            if(m_destinations[i].not_before <= GetTickCount64())
                return i;
        return -1;
    }

    // Posts a body to an address: the status, and what came back. Without an answer the status is none of HTTP's.
    int Exchange(const int i, const string path, const string more_headers, const char &body[], const int timeout_ms,
                 string &answer, string &answer_headers) const {
        char result[];
        answer = "";
        answer_headers = "";
        ResetLastError();
        int status = WebRequest("POST", m_destinations[i].url + path, m_headers + more_headers, timeout_ms, body, result,
                                answer_headers);
        if(ArraySize(result) > 0 && ArraySize(result) <= MOST_ANSWER_BYTES)
            answer = CharArrayToString(result, 0, ArraySize(result), CP_UTF8);
        return status;
    }

    void NoteWanted(const string answer) {
        m_has_wanted = true;
        m_wanted = StringFind(answer, "\"wanted\":") >= 0 ? answer : "";
    }

public:
    Sender() : m_headers(""), m_headers_of_ticks(""), m_refused_items(0), m_wanted(""), m_has_wanted(false) {}

    void Begin(const CollectorSettings &settings, const string source, const string agent) {
        ArrayResize(m_destinations, 0);
        m_refused_items = 0;
        m_wanted = "";
        m_has_wanted = false;
        m_headers_of_ticks = settings.fill_gaps ? "X-Can-Fill: ticks\r\n" : "";
        MathSrand((int)(GetTickCount64() % 32768));
        Add("Relay", settings.relay_url);
        Add("Server", settings.server_url);
        m_headers = "Content-Type: application/json\r\nUser-Agent: " + agent + "\r\n";
        if(settings.api_key != "")
            m_headers += "X-API-Key: " + settings.api_key + "\r\n";
        if(source != "")
            m_headers += "X-Source: " + source + "\r\n";
    }

    int RefusedItems() const { return m_refused_items; }

    // What is wrong now, for the chart; empty when all is well.
    string Trouble() const {
        string all = "";
        for(int i = 0; i < ArraySize(m_destinations); i++)
            if(m_destinations[i].said != "")
                all += m_destinations[i].name + ": " + m_destinations[i].said + "\n";
        return all;
    }

    // The newest answer to ticks, once: it may name what the server lacks. False when there is none.
    bool TakeWanted(string &answer) {
        bool has_wanted = m_has_wanted;
        answer = m_wanted;
        m_has_wanted = false;
        return has_wanted;
    }

    // Posts a body of `items` items to the first address that may be tried now; POST_LATER when there is none.
    PostOutcome Post(const string path, const bool is_fill, const string trace, const char &body[], const int items,
                     const int timeout_ms) {
        int i = Ready();
        if(i < 0)
            return POST_LATER;
        bool has_ticks = path == "/ingest/tick";
        string more = (has_ticks ? m_headers_of_ticks : "") + (is_fill ? "X-Fill: ticks\r\n" : "");
        string answer, answer_headers;
        int status = Exchange(i, path, more + "X-Trace-Id: " + trace + "\r\n", body, timeout_ms, answer, answer_headers);
        int error = GetLastError();
        // Some builds answer with numbers that are no HTTP status when nothing was reached.
        if(status < 100 || status > 599)
            return NoAnswer(i, error != 0 ? error : status);
        PostOutcome outcome = Meaning(i, status, answer, answer_headers, items);
        if(outcome == POST_TAKEN && has_ticks)
            NoteWanted(answer);
        return outcome;
    }

    // Posts what ticks must not wait for: whatever becomes of it, the addresses stay as good as they are.
    PostOutcome PostAside(const string path, const char &body[], const int items, const int timeout_ms) const {
        int i = Ready();
        if(i < 0)
            return POST_LATER;
        string answer, answer_headers;
        int status = Exchange(i, path, "", body, timeout_ms, answer, answer_headers);
        if(IsConfirmation(status, answer, items))
            return POST_TAKEN;
        return status == 400 && AnswerField(answer, "code") == "VALIDATION_ERROR" ? POST_REFUSED : POST_LATER;
    }
};

#endif
