.PHONY: bench-adoption bench-archive bench-browser bench-fanout bench-flames bench-flood bench-gateways bench-goals bench-growth bench-imports bench-ingest bench-latency bench-ledger bench-memory bench-page bench-pictures bench-peers bench-proof \
	bench-recovery bench-refold bench-replay bench-sql bench-storage bench-ticks bench-timeframes bench-whole

bench-timeframes: setup ## measure pages of candles from ten years of M1 (some minutes, 15 GB in /var/tmp)
	$(BIN)/python -m benchmarks.timeframes

bench-ingest: setup ## measure the producer against a route that does nothing and against unparsed bodies
	$(BIN)/python -m benchmarks.ingest

bench-gateways: setup ## measure the producer against a bare gateway of aiohttp and aiokafka (three minutes)
	$(BIN)/python -m benchmarks.gateways

bench-adoption: setup ## measure `tickpipe db adopt` of a million rows against a bare COPY of them
	$(BIN)/python -m benchmarks.adoption

bench-imports: setup ## measure `tickpipe import` against what the producer accepts in bodies of 200 ticks
	$(BIN)/python -m benchmarks.imports

bench-storage: setup ## measure M1 with and without compression (some minutes; TimescaleDB in Node.js)
	$(BIN)/python -m benchmarks.storage

bench-peers: setup ## the fold against Kafka Streams, Flink, Quix Streams, Bytewax and Faust; downloads them, then half an hour
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.peers --symbols 1000 --only tuned
	$(BIN)/python -m benchmarks.peers --symbols 10000 --only tuned

bench-proof: setup ## measure what exactness costs: the fold against one that only counts and keeps four prices
	$(BIN)/python -m benchmarks.proof
	$(BIN)/python -m benchmarks.proof --frame 200

bench-whole: setup ## the whole way, HTTP to rows, against PostgreSQL doing it all alone (five minutes)
	$(BIN)/python -m benchmarks.whole

bench-browser: setup ## measure the page in a browser: weight, first candle, frames, growth (twelve minutes)
	$(BIN)/python -m benchmarks.browser

bench-pictures: setup ## take the pictures of docs/dashboard.md again, of the demo (four minutes)
	$(BIN)/python -m benchmarks.pictures

bench-fanout: setup ## measure live streams of one dashboard: lag and processor time (two minutes)
	$(BIN)/python -m benchmarks.fanout

bench-flames: setup ## draw flame graphs of the services at the work of their benchmarks (needs the right to trace)
	$(BIN)/python -m benchmarks.flames

bench-flood: setup ## measure what one sender notices while another floods the producer (three minutes)
	$(BIN)/python -m benchmarks.flood --store
	$(BIN)/python -m tests.faults.record

bench-page: setup ## put the stored results into docs/performance.md and docs/dashboard.md
	$(BIN)/python -m benchmarks.page

bench-memory: setup ## measure what each service holds while a thousand symbols tick (eleven minutes)
	$(BIN)/python -m benchmarks.memory

bench-ledger: setup ## measure what the ledger of minutes costs at 1,000 and 10,000 symbols (some minutes)
	$(BIN)/python -m benchmarks.ledger

bench-refold: setup ## measure folding again from stored offsets against the fold stage
	$(BIN)/python -m benchmarks.refold
	$(BIN)/python -m benchmarks.refold --frame 200

bench-archive: setup ## measure the archiver against reading alone, and folds from the archive against those from Kafka
	$(BIN)/python -m benchmarks.archive
	$(BIN)/python -m benchmarks.archive --frame 200

bench-ticks: setup ## measure a day of ticks out again: GET /ticks and `tickpipe ticks`, from Kafka and from the archive
	$(BIN)/python -m benchmarks.ticks

bench-sql: setup ## measure `tickpipe sql` over 100 million archived ticks against DuckDB on plain Parquet (ten minutes, 0.8 GB in /var/tmp)
	$(BIN)/python -m benchmarks.sql

bench-replay: setup ## measure a replay from the log to the table against the fold alone
	$(BIN)/python -m benchmarks.replay
	$(BIN)/python -m benchmarks.replay --frame 200

bench-latency: setup ## measure a tick from its POST to its row and to the page, at shares of the rate that saturates (three minutes)
	$(BIN)/python -m benchmarks.latency

bench-growth: setup ## curves of the fold over symbols, ticks a record, partitions, workers, history (some twenty minutes)
	$(BIN)/python -m benchmarks.growth

bench-recovery: setup ## measure the way back after kill -9 and after an hour without the stream worker
	$(BIN)/python -m benchmarks.recovery

bench-goals: bench-peers bench-whole bench bench-refold bench-replay bench-latency bench-memory ## measure every stage and hold it against its goal (an hour)
	$(BIN)/python -m benchmarks.growth symbols
	$(BIN)/python -m benchmarks.recovery outage
	$(BIN)/python -m benchmarks.goals
