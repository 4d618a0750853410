// The broker of a test: ticks that become known at a scripted time, and how CopyTicks behaves meanwhile.

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

enum { SYMBOL_DIGITS = 1, SYMBOL_CHART_MODE = 2 };
enum { SYMBOL_POINT = 1 };
enum { SYMBOL_CHART_MODE_BID = 0, SYMBOL_CHART_MODE_LAST = 1 };
enum { COPY_TICKS_ALL = -1 };
enum { PERIOD_M1 = 1 };
const int ERR_HISTORY_TIMEOUT = 4403;

struct KnownTick {
    MqlTick tick;
    // When the terminal gets it (broker's clock, ms; after the command `known-in-utc` UTC).
    long known_msc;
};

struct Symbol {
    int digits = 5;
    double point = 0.00001;
    bool by_last = false;
    std::vector<KnownTick> ticks;
    // Calls of CopyTicks that only wait for the history, 45 s each.
    int synchronising = 0;
    // What such a call gives nevertheless: ticks from this time on; negative is nothing, answered with -1.
    long partial_from_msc = -1;
};

// By name, in the order of the Market Watch.
inline std::map<std::string, Symbol> symbols;

inline long broker_msc() { return terminal.now_ms + terminal.broker_offset_s * 1000L; }
inline bool known_in_utc = false;
inline bool is_known(const KnownTick &known) {
    return known.known_msc <= (known_in_utc ? terminal.now_ms : broker_msc());
}

inline int SymbolsTotal(bool) { return (int)symbols.size(); }
inline string SymbolName(int at, bool) { return string(std::next(symbols.begin(), at)->first); }
inline bool SymbolSelect(const string &name, bool) { return symbols.count(name.text) > 0; }
inline double SymbolInfoDouble(const string &name, int) { return symbols.at(name.text).point; }
inline long SymbolInfoInteger(const string &name, int what) {
    const Symbol &symbol = symbols.at(name.text);
    return what == SYMBOL_DIGITS ? symbol.digits : (long)symbol.by_last;
}

inline int CopyTicks(const string &name, Array<MqlTick> &ticks, int, ulong from_msc, uint count) {
    Symbol &symbol = symbols.at(name.text);
    ticks.items.clear();
    if(symbol.synchronising > 0) {
        symbol.synchronising--;
        terminal.now_ms += 45'000;
        terminal.last_error = ERR_HISTORY_TIMEOUT;
        if(symbol.partial_from_msc < 0)
            return -1;
        from_msc = (ulong)std::max((long)from_msc, symbol.partial_from_msc);
    }
    for(const KnownTick &known : symbol.ticks) {
        if(from_msc > 0 && ticks.items.size() == count)
            break;
        if(is_known(known) && known.tick.time_msc >= (long)from_msc)
            ticks.items.push_back(known.tick);
    }
    // From 0 on it gives the newest ones.
    if(ticks.items.size() > count)
        ticks.items.erase(ticks.items.begin(), ticks.items.end() - count);
    return ArraySize(ticks);
}

// TICK_FLAG_LAST, _VOLUME, _BUY and _SELL: any of them makes a deal of a tick.
const uint DEAL_FLAGS = 8 | 16 | 32 | 64;

// Bars of the prices that are known, the newest at position 0: of the bids, or of a chart by last of the deals.
inline int CopyRates(const string &name, int, int start, int count, Array<MqlRates> &rates) {
    std::vector<MqlRates> bars;
    const Symbol &symbol = symbols.at(name.text);
    for(const KnownTick &known : symbol.ticks) {
        if(!is_known(known))
            continue;
        const MqlTick &tick = known.tick;
        if(symbol.by_last && (tick.flags & DEAL_FLAGS) == 0)
            continue;
        double price = symbol.by_last ? tick.last : tick.bid;
        if(price == 0.0)
            continue;
        long minute = tick.time_msc / 60'000 * 60;
        int spread = (int)std::lround((tick.ask - tick.bid) / symbol.point);
        if(bars.empty() || bars.back().time != minute)
            bars.push_back({minute, price, price, price, price, 0, spread, 0});
        MqlRates &bar = bars.back();
        bar.high = std::max(bar.high, price);
        bar.low = std::min(bar.low, price);
        bar.close = price;
        bar.tick_volume++;
        bar.spread = std::min(bar.spread, spread);
        if((tick.flags & DEAL_FLAGS) != 0)
            bar.real_volume += (long)tick.volume_real;
    }
    int end = (int)bars.size() - start;
    int begin = std::max(0, end - count);
    rates.items.assign(bars.begin() + std::max(0, std::min(begin, end)), bars.begin() + std::max(0, end));
    return ArraySize(rates);
}
