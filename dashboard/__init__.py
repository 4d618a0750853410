"""The read-only side: candles as JSON, CSV and Arrow, live ones as server-sent events, and the page with the chart."""
