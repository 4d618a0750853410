// The broker of a test: ticks that become known at a scripted time, symbols that come and go, and calls that fail in every
// way that the reference names.

#pragma once

#include "mql5_shim.hpp"

struct MqlTick {
    datetime time;
    double bid;
    double ask;
    double last;
    ulong volume;
    long time_msc;
    uint flags;
    double volume_real;
};

struct MqlRates {
    datetime time;
    double open, high, low, close;
    long tick_volume;
    int spread;
    long real_volume;
};

enum {
    SYMBOL_DIGITS = 1,
    SYMBOL_CHART_MODE = 2,
    SYMBOL_TIME_MSC = 3,
    SYMBOL_EXIST = 4,
    SYMBOL_SELECT = 5,
    SYMBOL_VISIBLE = 6,
    SYMBOL_CUSTOM = 7,
    SYMBOL_EXPIRATION_TIME = 8
};
enum ENUM_DAY_OF_WEEK { SUNDAY = 0 };
enum { SYMBOL_POINT = 1 };
enum { SYMBOL_CHART_MODE_BID = 0, SYMBOL_CHART_MODE_LAST = 1 };
enum { COPY_TICKS_ALL = -1 };
enum { PERIOD_M1 = 1 };
enum { SERIES_SYNCHRONIZED = 1 };
const int ERR_MARKET_UNKNOWN_SYMBOL = 4301, ERR_MARKET_NOT_SELECTED = 4302, ERR_HISTORY_NOT_FOUND = 4401,
          ERR_HISTORY_TIMEOUT = 4403;

// What calls cost (ns). Guesses on the high side: a property is a look-up in the terminal's memory, ticks and bars are
// copied under a lock that the terminal's own threads share.
const long PROPERTY_NS = 1'000, COPY_NS = 50'000, ITEM_NS = 100;

struct KnownTick {
    MqlTick tick;
    // When the terminal gets it (UTC, ms); negative: when the broker's clock shows the tick's own time.
    long known_ms;
};

// How the next calls of CopyTicks and CopyTicksRange answer.
struct Fault {
    int calls = 0;
    int error = 0;
    // Most ticks of the answer; negative is the answer -1.
    int most = -1;
    // The answer begins here, whatever was asked for: it has a hole.
    long from_msc = 0;
    // How long the call takes.
    long wait_ms = 0;
};

struct Symbol {
    int digits = 5;
    double point = 0.00001;
    bool by_last = false;
    bool exists = true;
    bool is_selected = true;
    bool is_visible = true;
    bool is_custom = false;
    datetime expires = 0;
    std::vector<KnownTick> ticks;
    // Whether ticks lie by their time, and none is known before it.
    bool is_sorted = true;
    Fault fault;
    // The same for CopyRates.
    Fault bar_fault;
    bool has_bars = true;
    // There is no history before this time: calls that ask for it fail with this error, or give what there is.
    long history_from_msc = 0;
    int history_error = 0;
    long history_wait_ms = 0;
    // Quote sessions by day: begin and end (seconds of the day).
    std::map<int, std::vector<std::pair<long, long>>> sessions;
};

// By name, in the order of the Market Watch.
inline std::map<std::string, Symbol> broker_symbols;

inline long broker_msc() { return terminal.now_ms + terminal.broker_offset_s * 1000L; }

inline bool is_known(const KnownTick &known) {
    return known.known_ms < 0 ? known.tick.time_msc <= broker_msc() : known.known_ms <= terminal.now_ms;
}

// The symbol, or the reason why the terminal has nothing of it.
inline Symbol *usable(const string &name) {
    auto found = broker_symbols.find(name.text);
    if(found == broker_symbols.end() || !found->second.exists) {
        terminal.last_error = ERR_MARKET_UNKNOWN_SYMBOL;
        return nullptr;
    }
    if(!found->second.is_selected) {
        terminal.last_error = ERR_MARKET_NOT_SELECTED;
        return nullptr;
    }
    return &found->second;
}

inline std::vector<std::string> market_watch(bool only_selected) {
    std::vector<std::string> names;
    for(const auto &[name, symbol] : broker_symbols)
        if(symbol.exists && (symbol.is_selected || !only_selected))
            names.push_back(name);
    return names;
}

inline int SymbolsTotal(bool selected) { return (int)market_watch(selected).size(); }
inline string SymbolName(int at, bool selected) { return string(market_watch(selected).at((size_t)at)); }

inline bool SymbolSelect(const string &name, bool is_selected) {
    auto found = broker_symbols.find(name.text);
    if(found == broker_symbols.end() || !found->second.exists) {
        terminal.last_error = ERR_MARKET_UNKNOWN_SYMBOL;
        return false;
    }
    found->second.is_selected = is_selected;
    return true;
}

inline double SymbolInfoDouble(const string &name, int) {
    note_call(PROPERTY_NS, false);
    auto found = broker_symbols.find(name.text);
    return found == broker_symbols.end() ? 0.0 : found->second.point;
}

// The first tick of a symbol that the terminal may have at or behind a time.
inline size_t first_from(const Symbol &symbol, long from_msc) {
    if(!symbol.is_sorted)
        return 0;
    auto found = std::partition_point(symbol.ticks.begin(), symbol.ticks.end(),
                                      [from_msc](const KnownTick &known) { return known.tick.time_msc < from_msc; });
    return (size_t)(found - symbol.ticks.begin());
}

// Time of the newest quote: history that comes late is none.
inline long quote_msc(const Symbol &symbol) {
    size_t end = symbol.is_sorted ? first_from(symbol, broker_msc() + 1) : symbol.ticks.size();
    for(size_t at = end; at-- > 0;)
        if(is_known(symbol.ticks[at]))
            return symbol.ticks[at].tick.time_msc;
    return 0;
}

inline long SymbolInfoInteger(const string &name, int what) {
    note_call(PROPERTY_NS, false);
    auto found = broker_symbols.find(name.text);
    bool exists = found != broker_symbols.end() && found->second.exists;
    if(what == SYMBOL_EXIST)
        return exists;
    if(!exists) {
        terminal.last_error = ERR_MARKET_UNKNOWN_SYMBOL;
        return 0;
    }
    const Symbol &symbol = found->second;
    switch(what) {
    case SYMBOL_DIGITS: return symbol.digits;
    case SYMBOL_CHART_MODE: return symbol.by_last;
    case SYMBOL_TIME_MSC: return symbol.is_selected ? quote_msc(symbol) : 0;
    case SYMBOL_SELECT: return symbol.is_selected;
    case SYMBOL_VISIBLE: return symbol.is_selected && symbol.is_visible;
    case SYMBOL_CUSTOM: return symbol.is_custom;
    case SYMBOL_EXPIRATION_TIME: return symbol.expires;
    }
    std::abort();
}

// The dates of what is answered mean nothing, as the reference says.
inline bool SymbolInfoSessionQuote(const string &name, ENUM_DAY_OF_WEEK day, uint index, datetime &from, datetime &to) {
    note_call(PROPERTY_NS, false);
    auto found = broker_symbols.find(name.text);
    if(found == broker_symbols.end() || index >= found->second.sessions[day].size())
        return false;
    from = found->second.sessions[day][index].first;
    to = found->second.sessions[day][index].second;
    return true;
}

// Known ticks from one time to another, no more than `most`.
inline int copy_ticks(const string &name, Array<MqlTick> &ticks, long from_msc, long to_msc, size_t most) {
    note_call(COPY_NS, true);
    ticks.items.clear();
    Symbol *symbol = usable(name);
    if(!symbol)
        return -1;
    Fault &fault = symbol->fault;
    if(fault.calls > 0) {
        fault.calls--;
        terminal.now_ms += fault.wait_ms;
        terminal.last_error = fault.error;
        if(fault.most < 0)
            return -1;
        most = std::min(most, (size_t)fault.most);
        from_msc = std::max(from_msc, fault.from_msc);
    }
    if(from_msc < symbol->history_from_msc) {
        terminal.last_error = symbol->history_error;
        terminal.now_ms += symbol->history_wait_ms;
        if(symbol->history_error != 0)
            return -1;
        from_msc = symbol->history_from_msc;
    }
    for(size_t at = first_from(*symbol, from_msc); at < symbol->ticks.size() && ticks.items.size() < most; at++) {
        const KnownTick &known = symbol->ticks[at];
        if(symbol->is_sorted && (known.tick.time_msc > to_msc || (known.known_ms < 0 && known.tick.time_msc > broker_msc())))
            break;
        if(is_known(known) && known.tick.time_msc >= from_msc && known.tick.time_msc <= to_msc)
            ticks.items.push_back(known.tick);
    }
    terminal.cost_ns += ITEM_NS * ArraySize(ticks);
    return ArraySize(ticks);
}

inline int CopyTicks(const string &name, Array<MqlTick> &ticks, int, ulong from_msc, uint count) {
    return copy_ticks(name, ticks, (long)from_msc, INT64_MAX, count);
}

inline int CopyTicksRange(const string &name, Array<MqlTick> &ticks, int, ulong from_msc, ulong to_msc) {
    return copy_ticks(name, ticks, (long)from_msc, (long)to_msc, SIZE_MAX);
}

// TICK_FLAG_LAST, _VOLUME, _BUY and _SELL: any of them makes a deal of a tick.
const uint DEAL_FLAGS = 8 | 16 | 32 | 64;

inline long SeriesInfoInteger(const string &name, int, int) {
    note_call(PROPERTY_NS, false);
    const Symbol *symbol = usable(name);
    return symbol && symbol->has_bars;
}

// Bars of the prices that are known: of the bids, or of a chart by last of the deals. The newest of them, at most `most`.
inline int copy_rates(const string &name, datetime from, datetime to, size_t most, Array<MqlRates> &rates) {
    note_call(COPY_NS, true);
    rates.items.clear();
    Symbol *symbol = usable(name);
    if(!symbol)
        return -1;
    for(const KnownTick &known : symbol->ticks) {
        const MqlTick &tick = known.tick;
        long minute = tick.time_msc / 60'000 * 60;
        if(!is_known(known) || minute < from || minute > to)
            continue;
        if(symbol->by_last && (tick.flags & DEAL_FLAGS) == 0)
            continue;
        double price = symbol->by_last ? tick.last : tick.bid;
        if(price == 0.0)
            continue;
        int spread = (int)std::lround((tick.ask - tick.bid) / symbol->point);
        if(rates.items.empty() || rates.items.back().time != minute)
            rates.items.push_back({minute, price, price, price, price, 0, spread, 0});
        MqlRates &bar = rates.items.back();
        bar.high = std::max(bar.high, price);
        bar.low = std::min(bar.low, price);
        bar.close = price;
        bar.tick_volume++;
        bar.spread = std::min(bar.spread, spread);
        if((tick.flags & DEAL_FLAGS) != 0)
            bar.real_volume += (long)tick.volume_real;
    }
    if(rates.items.size() > most)
        rates.items.erase(rates.items.begin(), rates.items.end() - (long)most);
    Fault &fault = symbol->bar_fault;
    if(fault.calls > 0) {
        fault.calls--;
        terminal.last_error = fault.error;
        if(fault.most < 0)
            return -1;
        // What is not there yet is the oldest.
        size_t missing = rates.items.size() - std::min(rates.items.size(), (size_t)fault.most);
        rates.items.erase(rates.items.begin(), rates.items.begin() + (long)missing);
    }
    terminal.cost_ns += ITEM_NS * ArraySize(rates);
    return ArraySize(rates);
}


// So many bars up to a time.
inline int CopyRates(const string &name, int, datetime to, int count, Array<MqlRates> &rates) {
    return copy_rates(name, 0, to, (size_t)count, rates);
}
