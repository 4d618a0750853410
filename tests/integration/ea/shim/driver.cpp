// The EA in a scripted terminal. Commands come on stdin, a line each; what the EA logs and then one line `ok …` go to
// stdout.
//
//     files FOLDER | server NAME | forget-server | allow URL | disallow | connected 0|1 | offset SECONDS | disk BYTES
//     input NAME VALUE              an input of the EA, before init
//     symbol NAME DIGITS POINT bid|last
//     tick NAME TIME_MSC BID ASK LAST VOLUME FLAGS [KNOWN_MSC]
//     known-in-utc                  KNOWN_MSC is UTC, for a clock that is put back
//     sync NAME CALLS PARTIAL_FROM_MSC
//     now UTC_MS                    moves the clock, never back
//     init | deinit | timer COUNT STEP_MS
//     die REQUESTS                  end without warning while that request is under way
//     status                        ok and the chart's comment

#include <iostream>

#include "market.hpp"
#include "mql5_shim.hpp"
#include "sha256.hpp"
#include "web_request.hpp"

#include "DataCollectorPRO.translated.hpp"

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

static void add_tick(std::istream &line) {
    std::string name = symbol_in(line);
    MqlTick tick{};
    line >> tick.time_msc >> tick.bid >> tick.ask >> tick.last >> tick.volume_real >> tick.flags;
    tick.time = tick.time_msc / 1000;
    tick.volume = (ulong)tick.volume_real;
    long known_msc = tick.time_msc;
    line >> known_msc;
    symbols.at(name).ticks.push_back({tick, line ? known_msc : tick.time_msc});
}

static std::string run(const std::string &command, std::istream &line) {
    std::string name, value;
    long number = 0, step = 0;
    if(command == "tick")
        add_tick(line);
    else if(command == "files")
        line >> terminal.files;
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
    else if(command == "known-in-utc")
        known_in_utc = true;
    else if(command == "disk")
        line >> terminal.disk_bytes;
    else if(command == "input") {
        line >> name;
        std::getline(line >> std::ws, value);
        return set_input(name, value) ? "" : "no such input";
    } else if(command == "symbol") {
        Symbol &symbol = symbols[symbol_in(line)];
        line >> symbol.digits >> symbol.point >> value;
        symbol.by_last = value == "last";
    } else if(command == "sync") {
        name = symbol_in(line);
        line >> number >> step;
        symbols.at(name).synchronising = (int)number;
        symbols.at(name).partial_from_msc = step;
    } else if(command == "now" && line >> number)
        terminal.now_ms = std::max(terminal.now_ms, number);
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
    } else if(command == "die")
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
        if(command != "tick") {
            std::printf("ok %s\n", answer.c_str());
            std::fflush(stdout);
        }
    }
}
