"""The stream app: ticks in, M1 candles out. Faust brings groups, partitions and commits; the fold is marketdata's."""
