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
    // When the terminal gets it (broker's clock, ms).
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
        if(ticks.items.size() == count)
            break;
        if(known.known_msc <= broker_msc() && known.tick.time_msc >= (long)from_msc)
            ticks.items.push_back(known.tick);
    }
    return ArraySize(ticks);
}

// Bars of the bids that are known, the newest at position 0.
inline int CopyRates(const string &name, int, int start, int count, Array<MqlRates> &rates) {
    std::vector<MqlRates> bars;
    const Symbol &symbol = symbols.at(name.text);
    for(const KnownTick &known : symbol.ticks) {
        if(known.known_msc > broker_msc())
            continue;
        const MqlTick &tick = known.tick;
        long minute = tick.time_msc / 60'000 * 60;
        int spread = (int)std::lround((tick.ask - tick.bid) / symbol.point);
        if(bars.empty() || bars.back().time != minute)
            bars.push_back({minute, tick.bid, tick.bid, tick.bid, tick.bid, 0, spread, 0});
        MqlRates &bar = bars.back();
        bar.high = std::max(bar.high, tick.bid);
        bar.low = std::min(bar.low, tick.bid);
        bar.close = tick.bid;
        bar.tick_volume++;
        bar.spread = std::min(bar.spread, spread);
    }
    int end = (int)bars.size() - start;
    int begin = std::max(0, end - count);
    rates.items.assign(bars.begin() + std::max(0, std::min(begin, end)), bars.begin() + std::max(0, end));
    return ArraySize(rates);
}
