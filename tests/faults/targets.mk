.PHONY: faults

faults: setup ## run every fault case, ten rounds each (half an hour); TICKPIPE_FAULT_SEED repeats a run
	TICKPIPE_FAULTS=full $(BIN)/pytest tests/faults -m fault
