// DataCollectorPRO as a service: it needs no chart, and so does not end with one. It does not trade.
// Install: copy this folder to MQL5\Services\DataCollectorPRO, press F7 in MetaEditor, add the service (docs/ea.md).
#property service
#property copyright "Tickpipe contributors, MIT licence"
#property version "2.00"
#property description "Sends every tick and closed M1 bar of all symbols to Tickpipe. It does not trade."
#property description "Envia todos os ticks e barras M1 fechadas ao Tickpipe. Não opera."
#property description "Tools > Options > Expert Advisors > Allow WebRequest for: http://127.0.0.1:18000 and your server"

#include "inputs.mqh"
#include "tick_collector.mqh"

// A service has no chart: how it stands is told in the log so often (ms).
#define STATUS_EVERY_MS 3600000

TickCollector collector;

void OnStart() {
    CollectorSettings settings;
    if(!ReadInputs(settings) || !collector.Begin(settings))
        return;
    ulong said_at = 0;
    while(!IsStopped()) {
        collector.Turn();
        if(said_at == 0 || GetTickCount64() - said_at >= STATUS_EVERY_MS) {
            Print(collector.Status());
            said_at = GetTickCount64();
        }
        Sleep(TimerMs);
    }
    collector.End();
}
