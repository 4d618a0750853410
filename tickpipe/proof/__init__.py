"""Candles with their ticks in a folder that proves itself, without Kafka and database."""
