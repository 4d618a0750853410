"""The stream app: ticks in, M1 candles out. Faust brings groups, partitions and commits; the fold is marketdata's."""

import os

# Of numpy no linear algebra is used, for which it would start a thread for each processor.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
