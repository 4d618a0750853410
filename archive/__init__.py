"""Writes every tick of the log to Parquet files, from which candles can be folded as from Kafka."""
