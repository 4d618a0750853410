// Ticks and bars to the JSON that the server takes (docs/http.md). Each item has a line of its own, so that a body can be
// split without a parser: a head line, items, a last line.

#ifndef TICKPIPE_POST_BODY_MQH
#define TICKPIPE_POST_BODY_MQH

// No offset is said: the server knows the zone.
#define NO_OFFSET (-1000000)

// The shortest text that reads back as the same double: brokers' prices have `digits` decimals, others get 17 digits.
string JsonNumber(const double value, const int digits) {
    if(!MathIsValidNumber(value))
        return "0";
    string text = DoubleToString(value, digits);
    if(StringToDouble(text) == value)
        return text;
    return StringFormat("%.17g", value);
}

string JsonText(const string text) {
    string escaped = text;
    StringReplace(escaped, "\\", "\\\\");
    StringReplace(escaped, "\"", "\\\"");
    return "\"" + escaped + "\"";
}

// What stays the same for each tick of a symbol.
struct SymbolFacts {
    string symbol;
    int digits;
    // ,"digits":5,"point":0.00001,"mode":"bid"
    string tail;
};

void ReadFacts(const string symbol, SymbolFacts &facts) {
    facts.symbol = JsonText(symbol);
    facts.digits = (int)SymbolInfoInteger(symbol, SYMBOL_DIGITS);
    double point = SymbolInfoDouble(symbol, SYMBOL_POINT);
    bool by_last = SymbolInfoInteger(symbol, SYMBOL_CHART_MODE) == (long)SYMBOL_CHART_MODE_LAST;
    facts.tail = ",\"digits\":" + IntegerToString(facts.digits) + ",\"point\":" + JsonNumber(point, facts.digits) +
                 ",\"mode\":" + JsonText(by_last ? "last" : "bid") + "}";
}

// time_msc and symbol come first: lines that agree up to `,"bid"` are of one millisecond and stay together. `is_late` says
// that the tick came into the terminal's list behind later ones.
string TickItem(const MqlTick &tick, const SymbolFacts &facts, const bool is_late) {
    double volume = tick.volume_real > 0.0 ? tick.volume_real : (double)tick.volume;
    return "{\"time_msc\":" + IntegerToString(tick.time_msc) + ",\"symbol\":" + facts.symbol +
           ",\"bid\":" + JsonNumber(tick.bid, facts.digits) + ",\"ask\":" + JsonNumber(tick.ask, facts.digits) +
           ",\"last\":" + JsonNumber(tick.last, facts.digits) + ",\"volume_real\":" + JsonNumber(volume, 0) +
           ",\"flags\":" + IntegerToString((long)tick.flags) + (is_late ? ",\"late\":true" : "") + facts.tail;
}

string BarItem(const MqlRates &bar, const SymbolFacts &facts) {
    return "{\"time_msc\":" + IntegerToString((long)bar.time * 1000) + ",\"symbol\":" + facts.symbol +
           ",\"timeframe\":\"M1\",\"open\":" + JsonNumber(bar.open, facts.digits) +
           ",\"high\":" + JsonNumber(bar.high, facts.digits) + ",\"low\":" + JsonNumber(bar.low, facts.digits) +
           ",\"close\":" + JsonNumber(bar.close, facts.digits) +
           ",\"tick_volume\":" + IntegerToString((long)bar.tick_volume) +
           ",\"real_volume\":" + IntegerToString((long)bar.real_volume) +
           ",\"spread\":" + IntegerToString((long)bar.spread) + "}";
}

// `name` is `ticks` or `items`.
string BodyHead(const string name, const int utc_offset_s) {
    string head = "{";
    if(utc_offset_s != NO_OFFSET)
        head += "\"utc_offset_s\":" + IntegerToString(utc_offset_s) + ",";
    return head + "\"" + name + "\":[\n";
}

#define BODY_END "\n]}"

// UTF-8 without the NUL that StringToCharArray appends.
void ToUtf8(const string text, char &bytes[]) {
    int count = StringToCharArray(text, bytes, 0, WHOLE_ARRAY, CP_UTF8);
    while(count > 0 && bytes[count - 1] == 0)
        count--;
    ArrayResize(bytes, count);
}

// Where the items of a body begin, and behind the last where its end begins.
void ItemStarts(const char &body[], int &starts[]) {
    int size = ArraySize(body);
    int found = 0;
    ArrayResize(starts, 0, 1024);
    for(int i = 0; i < size; i++)
        if(body[i] == '\n') {
            ArrayResize(starts, found + 1, 1024);
            starts[found] = i + 1;
            found++;
        }
}

// Whether two items may not be parted: they are of one symbol and millisecond.
bool SameMillisecond(const char &body[], const int &starts[], const int left, const int right) {
    int ends_left = starts[left + 1];
    int ends_right = starts[right + 1];
    int commas = 0;
    for(int i = 0; starts[left] + i < ends_left && starts[right] + i < ends_right; i++) {
        char c = body[starts[left] + i];
        if(c != body[starts[right] + i])
            return false;
        if(c == ',') {
            commas++;
            if(commas == 2)
                return true;
        }
    }
    return false;
}

// The item at which `count` items from `from` on are best parted: the change of millisecond nearest to the middle; the
// middle when there is no change.
int SplitPoint(const char &body[], const int &starts[], const int from, const int count) {
    int middle = from + count / 2;
    for(int away = 0; away < count; away++) {
        if(middle - away > from && !SameMillisecond(body, starts, middle - away - 1, middle - away))
            return middle - away;
        if(middle + away < from + count && !SameMillisecond(body, starts, middle + away - 1, middle + away))
            return middle + away;
    }
    return middle;
}

// A body of the items from `from` on.
void PartOf(const char &body[], const int &starts[], const int from, const int count, char &part[]) {
    int head = starts[0];
    int begin = starts[from];
    int end = starts[from + count] - 1; // without the line's end
    if(body[end - 1] == ',')
        end--;
    int tail = starts[ArraySize(starts) - 1] - 1;
    int tail_size = ArraySize(body) - tail;
    ArrayResize(part, head + (end - begin) + tail_size);
    ArrayCopy(part, body, 0, 0, head);
    ArrayCopy(part, body, head, begin, end - begin);
    ArrayCopy(part, body, head + (end - begin), tail, tail_size);
}

#endif
