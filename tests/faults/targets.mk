.PHONY: faults soak

faults: setup ## run every fault case, ten rounds each (about an hour); TICKPIPE_FAULT_SEED repeats a run
	TICKPIPE_TESTS=full $(BIN)/pytest tests/faults -m fault

soak: MINUTES ?= 30
soak: setup ## live traffic with faults for MINUTES=30, and whether memory and file descriptors stay level
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)
