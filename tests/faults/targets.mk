.PHONY: faults soak

faults: setup ## run every fault case, ten rounds each, six side by side; TICKPIPE_FAULT_SEED repeats a run
	TICKPIPE_TESTS=full $(BIN)/pytest tests/faults -m fault -n 6 --dist load --maxschedchunk 1

soak: MINUTES ?= 30
soak: setup ## live traffic with faults for MINUTES=30, and whether memory and file descriptors stay level
	$(BIN)/python -m tests.faults.soak --minutes $(MINUTES)
