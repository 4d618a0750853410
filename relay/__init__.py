"""The Windows side: ticks are stored in SQLite before they are answered, and forwarded to the server in order."""
