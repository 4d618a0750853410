.PHONY: outage bench-relay

outage: setup ## cut the relay's network for an hour of trading, with kills and a jumping clock
	TICKPIPE_TESTS=full TICKPIPE_OUTAGE_MINUTES=60 $(BIN)/pytest -s tests/faults/test_relay_outage.py

bench-relay: setup ## measure what the relay stores and forwards a second
	$(BIN)/python -m benchmarks.relay
