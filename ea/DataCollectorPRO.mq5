// DataCollectorPRO: every tick of all chosen symbols, and every closed M1 bar, to Tickpipe. It does not trade.
// Install: copy this folder to MQL5\Experts\DataCollectorPRO, press F7 in MetaEditor, attach to one chart (docs/ea.md).
#property copyright "Tickpipe contributors, MIT licence"
#property version "2.00"
#property description "Sends every tick and closed M1 bar of all symbols to Tickpipe. It does not trade."
#property description "Envia todos os ticks e barras M1 fechadas ao Tickpipe. Não opera."
#property description "Tools > Options > Expert Advisors > Allow WebRequest for: http://127.0.0.1:18000 and your server"

#include "inputs.mqh"
#include "tick_collector.mqh"

TickCollector collector;
string shown = "";

int OnInit() {
    if(MQLInfoInteger(MQL_TESTER) != 0) {
        Print("The strategy tester has no WebRequest: attach the EA to a live chart.");
        return INIT_FAILED;
    }
    CollectorSettings settings;
    if(!ReadInputs(settings) || !collector.Begin(settings))
        return INIT_PARAMETERS_INCORRECT;
    if(EventSetMillisecondTimer(TimerMs))
        return INIT_SUCCEEDED;
    Print("The terminal gives no timer (error ", IntegerToString(GetLastError()), "). Cure: attach the EA again, or use the service.");
    return INIT_FAILED;
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
