// The EA in a scripted terminal. Commands come on stdin, a line each; what the EA logs and then one line `ok …` go to
// stdout.
//
//     files FOLDER | common FOLDER | server NAME | forget-server | allow URL | disallow | connected 0|1 | offset SECONDS
//     clock MS                      how far the PC's clock is ahead of the truth
//     disk BYTES [late]             so much is free; `late`: writing says that all is well
//     no-timer                      the terminal gives the program no timer
//     input NAME VALUE              an input of the EA, before init
//     symbol NAME DIGITS POINT bid|last
//     state NAME exists|selected|visible|custom|bars 0|1      state NAME expires SECONDS
//     session NAME DAY FROM_S TO_S   quotes of a weekday, in seconds of it
//     tick NAME TIME_MSC BID ASK LAST VOLUME FLAGS [KNOWN_MS] appends to the list, in whatever order
//     late NAME TIME_MSC BID ASK LAST VOLUME FLAGS KNOWN_MS   inserts by its time, behind equal ones
//     fault NAME CALLS ERROR MOST FROM_MSC WAIT_MS            of CopyTicks and CopyTicksRange
//     history NAME FROM_MSC ERROR [WAIT_MS]   there is none before that time; without an error calls say nothing of it
//     bar-fault NAME CALLS ERROR MOST                         of CopyRates
//     now UTC_MS                    moves the clock, never back
//     clock-shows                   the time (UTC, ms)
//     init | deinit | timer COUNT STEP_MS
//     service MS                    runs the service until the user stops it after that time
//     stop CALLS                    the user stops the program after so many calls into the terminal
//     calls                         calls that read or sent after that, and what all calls cost (ns)
//     die REQUESTS                  end without warning while that request is under way
//     status                        ok and the chart's comment

#include <iostream>

#include "market.hpp"
#include "mql5_shim.hpp"
#include "sha256.hpp"
#include "web_request.hpp"

#include "DataCollectorPRO.translated.hpp"

// Its names are the EA's.
namespace service {
#include "DataCollectorPROService.translated.hpp"
}

static bool set_input(const std::string &name, const std::string &value) {
    std::map<std::string, string *> texts = {{"RelayUrl", &RelayUrl}, {"ServerUrl", &ServerUrl}, {"ApiKey", &ApiKey},
                                             {"Source", &Source},     {"Symbols", &Symbols}};
    std::map<std::string, int *> numbers = {
        {"ClockMinutes", &ClockMinutes}, {"TimerMs", &TimerMs},           {"TimeoutMs", &TimeoutMs},
        {"MaxTicks", &MaxTicks},         {"RingMegabytes", &RingMegabytes}, {"CatchUpHours", &CatchUpHours},
        {"FirstHours", &FirstHours}};
    if(texts.count(name))
        *texts[name] = string(value);
    else if(numbers.count(name))
        *numbers[name] = std::stoi(value);
    else if(name == "SendBars")
        SendBars = value == "true";
    else if(name == "FillGaps")
        FillGaps = value == "true";
    else if(name == "Clock")
        Clock = (ClockOffset)std::stoi(value);
    else
        return false;
    return true;
}

// A symbol; a space in it is written as the unit separator.
static std::string symbol_in(std::istream &line) {
    std::string name;
    line >> name;
    std::replace(name.begin(), name.end(), '\x1f', ' ');
    return name;
}

static void add_tick(std::istream &line, bool by_time) {
    Symbol &symbol = broker_symbols.at(symbol_in(line));
    MqlTick tick{};
    line >> tick.time_msc >> tick.bid >> tick.ask >> tick.last >> tick.volume_real >> tick.flags;
    tick.time = tick.time_msc / 1000;
    tick.volume = (ulong)tick.volume_real;
    long known_ms = -1;
    if(!(line >> known_ms))
        known_ms = -1;
    if(by_time) {
        size_t at = first_from(symbol, tick.time_msc + 1);
        symbol.ticks.insert(symbol.ticks.begin() + (long)at, {tick, known_ms});
        return;
    }
    if(!symbol.ticks.empty() && symbol.ticks.back().tick.time_msc > tick.time_msc)
        symbol.is_sorted = false;
    symbol.ticks.push_back({tick, known_ms});
}

static bool set_state(Symbol &symbol, const std::string &name, long value) {
    std::map<std::string, bool *> flags = {{"exists", &symbol.exists},
                                           {"selected", &symbol.is_selected},
                                           {"visible", &symbol.is_visible},
                                           {"custom", &symbol.is_custom},
                                           {"bars", &symbol.has_bars}};
    if(name == "expires")
        symbol.expires = value;
    else if(flags.count(name))
        *flags[name] = value != 0;
    else
        return false;
    return true;
}

static std::string run(const std::string &command, std::istream &line) {
    std::string name, value;
    long number = 0, step = 0;
    if(command == "tick" || command == "late")
        add_tick(line, command == "late");
    else if(command == "files")
        line >> terminal.files;
    else if(command == "common")
        line >> terminal.common;
    else if(command == "server")
        std::getline(line >> std::ws, terminal.server);
    else if(command == "forget-server")
        terminal.server.clear();
    else if(command == "allow" && line >> name)
        terminal.allowed.push_back(name);
    else if(command == "disallow")
        terminal.allowed.clear();
    else if(command == "connected")
        line >> terminal.connected;
    else if(command == "offset")
        line >> terminal.broker_offset_s;
    else if(command == "clock")
        line >> terminal.pc_error_ms;
    else if(command == "disk") {
        line >> terminal.disk_bytes >> name;
        terminal.disk_shows_late = name == "late";
    } else if(command == "answer-takes")
        line >> terminal.answer_ms;
    else if(command == "no-timer")
        terminal.has_timers = false;
    else if(command == "input") {
        line >> name;
        std::getline(line >> std::ws, value);
        return set_input(name, value) ? "" : "no such input";
    } else if(command == "symbol") {
        Symbol &symbol = broker_symbols[symbol_in(line)];
        line >> symbol.digits >> symbol.point >> value;
        symbol.by_last = value == "last";
    } else if(command == "state") {
        Symbol &symbol = broker_symbols.at(symbol_in(line));
        line >> name >> number;
        return set_state(symbol, name, number) ? "" : "no such state";
    } else if(command == "session") {
        Symbol &symbol = broker_symbols.at(symbol_in(line));
        long day = 0;
        line >> day >> number >> step;
        symbol.sessions[(int)day].push_back({number, step});
    } else if(command == "history") {
        Symbol &symbol = broker_symbols.at(symbol_in(line));
        line >> symbol.history_from_msc >> symbol.history_error >> symbol.history_wait_ms;
    } else if(command == "fault") {
        Fault &fault = broker_symbols.at(symbol_in(line)).fault;
        line >> fault.calls >> fault.error >> fault.most >> fault.from_msc >> fault.wait_ms;
    } else if(command == "bar-fault") {
        Fault &fault = broker_symbols.at(symbol_in(line)).bar_fault;
        line >> fault.calls >> fault.error >> fault.most;
    } else if(command == "now" && line >> number)
        terminal.now_ms = std::max(terminal.now_ms, number);
    else if(command == "clock-shows")
        return std::to_string(terminal.now_ms);
    else if(command == "init")
        return std::to_string(OnInit());
    else if(command == "deinit")
        OnDeinit(5);
    else if(command == "timer" && line >> number >> step) {
        long longest = 0;
        for(long i = 0; i < number; i++) {
            terminal.now_ms += step;
            long began = steady_ms();
            OnTimer();
            longest = std::max(longest, steady_ms() - began);
        }
        return std::to_string(longest);
    } else if(command == "service" && line >> number) {
        terminal.stopped_at_ms = terminal.now_ms + number;
        terminal.calls_until_stop = -1;
        service::OnStart();
    } else if(command == "stop") {
        line >> terminal.calls_until_stop;
        terminal.calls_after_stop = 0;
    } else if(command == "calls")
        return std::to_string(terminal.calls_after_stop) + " " + std::to_string(terminal.cost_ns);
    else if(command == "die")
        line >> requests_until_death;
    else if(command == "status") {
        std::string text = terminal.comment;
        std::replace(text.begin(), text.end(), '\n', '|');
        return text;
    } else
        return "no such command";
    return "";
}

int main() {
    for(std::string text; std::getline(std::cin, text);) {
        std::istringstream line(text);
        std::string command;
        line >> command;
        std::string answer = run(command, line);
        // A day of ticks is loaded without an answer for each.
        if(command != "tick" && command != "late") {
            std::printf("ok %s\n", answer.c_str());
            std::fflush(stdout);
        }
    }
}
