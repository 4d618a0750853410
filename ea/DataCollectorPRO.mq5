// DataCollectorPRO: every tick of all chosen symbols, and every closed M1 bar, to Tickpipe. It does not trade.
// Install: copy this folder to MQL5\Experts\DataCollectorPRO, press F7 in MetaEditor, attach to one chart (docs/ea.md).
#property copyright "Tickpipe contributors, MIT licence"
#property version "2.00"
#property description "Sends every tick and closed M1 bar of all symbols to Tickpipe. It does not trade."
#property description "Envia todos os ticks e barras M1 fechadas ao Tickpipe. Não opera."
#property description "Tools > Options > Expert Advisors > Allow WebRequest for: http://127.0.0.1:18000 and your server"

#include "tick_collector.mqh"

input group "Where to / Para onde"
input string RelayUrl = "http://127.0.0.1:18000"; // Relay on this PC, or empty / Relay neste PC, ou vazio
input string ServerUrl = "";                      // Server, if the relay is away / Servidor, se o relay faltar
input string ApiKey = "";                         // API key / Chave de API
input string Source = "";                         // Name of the feed; auto: broker / Nome da fonte; auto: corretora

input group "What / O quê"
input string Symbols = "";                        // Symbols; empty: Market Watch / Símbolos; vazio: Market Watch
input bool SendBars = true;                       // Send closed M1 bars too / Enviar também barras M1 fechadas
input ClockOffset Clock = CLOCK_AUTO;             // Broker's clock / Relógio da corretora
input int ClockMinutes = 0;                       // Minutes ahead of UTC, if fixed / Minutos do UTC, se fixo

input group "How / Como"
input int TimerMs = 250;                          // Pause between readings, ms / Pausa entre leituras, ms
input int TimeoutMs = 5000;                       // Longest wait for an answer, ms / Espera máxima, ms
input int MaxTicks = 2000;                        // Ticks of a request, about / Ticks por requisição
input int RingMegabytes = 64;                     // Disk for unsent ticks, MB / Disco para ticks não enviados, MB
input int CatchUpHours = 24;                      // Hours caught up after a pause / Horas recuperadas após pausa
input int FirstHours = 0;                         // Hours of history at first start / Horas de histórico no início

TickCollector collector;
string shown = "";

bool Within(const string name, const int value, const int least, const int most) {
    if(value >= least && value <= most)
        return true;
    Print(name, " must be from ", IntegerToString(least), " to ", IntegerToString(most), ", not ", IntegerToString(value), ".");
    return false;
}

int OnInit() {
    if(MQLInfoInteger(MQL_TESTER) != 0) {
        Print("The strategy tester has no WebRequest: attach the EA to a live chart.");
        return INIT_FAILED;
    }
    if(!Within("TimerMs", TimerMs, 50, 60000) || !Within("TimeoutMs", TimeoutMs, 1000, 60000) ||
       !Within("MaxTicks", MaxTicks, 1, 20000) || !Within("RingMegabytes", RingMegabytes, 1, 4096) ||
       !Within("CatchUpHours", CatchUpHours, 1, 720) || !Within("FirstHours", FirstHours, 0, CatchUpHours) ||
       !Within("ClockMinutes", ClockMinutes, -1080, 1080))
        return INIT_PARAMETERS_INCORRECT;
    CollectorSettings settings;
    settings.relay_url = RelayUrl;
    settings.server_url = ServerUrl;
    settings.api_key = ApiKey;
    settings.source = Source;
    settings.symbols = Symbols;
    settings.send_bars = SendBars;
    settings.timeout_ms = TimeoutMs;
    settings.max_ticks = MaxTicks;
    settings.ring_megabytes = RingMegabytes;
    settings.catch_up_hours = CatchUpHours;
    settings.first_hours = FirstHours;
    settings.clock = Clock;
    settings.fixed_offset_s = ClockMinutes * 60;
    if(!collector.Begin(settings))
        return INIT_PARAMETERS_INCORRECT;
    EventSetMillisecondTimer(TimerMs);
    return INIT_SUCCEEDED;
}

void OnTimer() {
    collector.Turn();
    string status = collector.Status();
    if(status == shown)
        return;
    shown = status;
    Comment(status);
}

void OnDeinit(const int reason) {
    EventKillTimer();
    collector.End();
    shown = "";
    Comment("");
}
