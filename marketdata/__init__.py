"""The domain: ticks, candles, the fold, offset sets, wire encodings, topics, settings and errors."""
