// What the page says, in English and Portuguese.

const TEXTS = {
  en: {
    locale: "en-GB",
    chart: "Chart",
    chooseSymbol: "Choose a symbol (/)",
    search: "Search",
    symbols: "Symbols",
    nothingFound: "Nothing found",
    timeframe: "Timeframe",
    pipeline: "Pipeline",
    pipelineHint: "State of the pipeline (P)",
    languageHint: "Português (L)",
    themeHint: "Light or dark (T)",
    helpHint: "Keys and API (?)",
    latestHint: "To the newest bar (End)",
    chartsBy: "Charts by",
    close: "Close",
    live: "Live",
    lastTick: "Last tick {ago}",
    connecting: "Connecting…",
    reconnecting: "Connection lost, trying again…",
    kafkaAway: "No live data: Kafka does not answer",
    noSymbols: "No candles yet",
    noSymbolsHint: "The chart begins by itself with the first tick. Post one to the producer, or start the demo: tickpipe up --demo",
    noSuchSymbol: "There are no candles of {symbol}",
    noChart: "The chart library is not installed",
    noChartHint: "Run “make setup”, or “pip install --no-deps lwcharts==0.3.0”, and restart the dashboard. The API works without it.",
    failed: "The candles cannot be read",
    offline: "The dashboard does not answer. The page goes on by itself when it is back.",
    open: "O", high: "H", low: "L", close_: "C", volume: "Vol",
    summary: "{symbol} {timeframe}, bar of {time} UTC: open {open}, high {high}, low {low}, close {close}, {volume} ticks.",
    flows: "Everything flows",
    behind: "Catching up",
    broken: "Something does not answer",
    ticksPerSecond: "Ticks per second",
    latency: "Latency: median · 99 %",
    latencyHint: "The last minute: from the tick’s own time to its receipt, and from its receipt to each stage",
    receivedStage: "tick → received",
    foldedStage: "received → folded",
    storedStage: "received → stored",
    shownStage: "received → here",
    lag: "Waiting",
    streamLag: "to be folded",
    sinkLag: "to be stored",
    lagHint: "Records. Those of open minutes count as waiting to be folded.",
    rejected: "Rejected",
    rejectedTicks: "ticks",
    rejectedCandles: "candles",
    kafka: "Kafka", database: "Database",
    answers: "answers", silent: "does not answer",
    feeds: "Newest ticks",
    feed: "Symbol", lastPrice: "Price", when: "Tick",
    none: "none lately",
    keys: "Keys",
    keyTimeframe: "Timeframe", keySymbol: "Symbol", keyScroll: "Scroll", keyZoom: "Zoom", keyLatest: "Newest bar",
    table: "Bars as a table",
    tableHint: "Bars as a table (D)",
    tableCaption: "The newest {count} bars, the newest first; times are UTC",
    barTime: "Time, UTC", openWord: "Open", highWord: "High", lowWord: "Low", closeWord: "Close", volumeWord: "Ticks",
    keyPane: "Pipeline", keyTable: "Table", keyTheme: "Light or dark", keyLanguage: "Language", keyFit: "First bar that is loaded",
  },
  pt: {
    locale: "pt-BR",
    chart: "Gráfico",
    chooseSymbol: "Escolher um símbolo (/)",
    search: "Buscar",
    symbols: "Símbolos",
    nothingFound: "Nada encontrado",
    timeframe: "Período",
    pipeline: "Pipeline",
    pipelineHint: "Estado do pipeline (P)",
    languageHint: "English (L)",
    themeHint: "Claro ou escuro (T)",
    helpHint: "Teclas e API (?)",
    latestHint: "Ir para a barra mais nova (End)",
    chartsBy: "Gráficos por",
    close: "Fechar",
    live: "Ao vivo",
    lastTick: "Último tick {ago}",
    connecting: "Conectando…",
    reconnecting: "Conexão perdida, tentando de novo…",
    kafkaAway: "Sem dados ao vivo: o Kafka não responde",
    noSymbols: "Ainda não há velas",
    noSymbolsHint: "O gráfico começa sozinho com o primeiro tick. Envie um ao producer ou inicie a demonstração: tickpipe up --demo",
    noSuchSymbol: "Não há velas de {symbol}",
    noChart: "A biblioteca de gráficos não está instalada",
    noChartHint: "Execute “make setup” ou “pip install --no-deps lwcharts==0.3.0” e reinicie o dashboard. A API funciona sem ela.",
    failed: "Não foi possível ler as velas",
    offline: "O dashboard não responde. A página continua sozinha quando ele voltar.",
    open: "A", high: "Máx", low: "Mín", close_: "F", volume: "Vol",
    summary: "{symbol} {timeframe}, barra de {time} UTC: abertura {open}, máxima {high}, mínima {low}, fechamento {close}, {volume} ticks.",
    flows: "Tudo flui",
    behind: "Recuperando o atraso",
    broken: "Algo não responde",
    ticksPerSecond: "Ticks por segundo",
    latency: "Latência: mediana · 99 %",
    latencyHint: "O último minuto: da hora do próprio tick ao recebimento, e do recebimento a cada etapa",
    receivedStage: "tick → recebido",
    foldedStage: "recebido → agregado",
    storedStage: "recebido → gravado",
    shownStage: "recebido → aqui",
    lag: "Em espera",
    streamLag: "para agregar",
    sinkLag: "para gravar",
    lagHint: "Registros. Os dos minutos abertos contam como à espera de agregação.",
    rejected: "Rejeitados",
    rejectedTicks: "ticks",
    rejectedCandles: "velas",
    kafka: "Kafka", database: "Banco de dados",
    answers: "responde", silent: "não responde",
    feeds: "Ticks mais novos",
    feed: "Símbolo", lastPrice: "Preço", when: "Tick",
    none: "nenhum há pouco",
    keys: "Teclas",
    keyTimeframe: "Período", keySymbol: "Símbolo", keyScroll: "Rolar", keyZoom: "Zoom", keyLatest: "Barra mais nova",
    table: "Barras em tabela",
    tableHint: "Barras em tabela (D)",
    tableCaption: "As {count} barras mais novas, a mais nova primeiro; horários em UTC",
    barTime: "Hora, UTC", openWord: "Abertura", highWord: "Máxima", lowWord: "Mínima", closeWord: "Fechamento", volumeWord: "Ticks",
    keyPane: "Pipeline", keyTable: "Tabela", keyTheme: "Claro ou escuro", keyLanguage: "Idioma", keyFit: "Primeira barra carregada",
  },
};

let texts = TEXTS.en;

/** The language that the reader's browser asks for. */
export function preferredLanguage() {
  return navigator.languages?.[0]?.toLowerCase().startsWith("pt") ? "pt" : "en";
}

/** Switch the language, and put its words where the page asks for them. */
export function setLanguage(name) {
  texts = TEXTS[name] ?? TEXTS.en;
  document.documentElement.lang = name;
  const put = (attribute, use) => {
    for (const element of document.querySelectorAll(`[data-${attribute}]`)) use(element, t(element.getAttribute(`data-${attribute}`)));
  };
  put("i18n", (element, text) => { element.textContent = text; });
  put("i18n-label", (element, text) => element.setAttribute("aria-label", text));
  put("i18n-placeholder", (element, text) => { element.placeholder = text; });
  put("i18n-title", (element, text) => {
    element.title = text;
    element.setAttribute("aria-label", text);
  });
}

/** The text of that name, with `{name}` filled in. */
export function t(name, values = {}) {
  return texts[name].replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}
