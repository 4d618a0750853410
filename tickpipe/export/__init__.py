"""Candles to CSV and Parquet files."""
