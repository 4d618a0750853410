-- When a candle was folded: between its receipt and its row, so that the table tells which of the two took the time.

ALTER TABLE market_data ADD COLUMN folded_at timestamptz;

COMMENT ON COLUMN market_data.folded_at IS 'when the stream app, or a refold, made this candle of its ticks';
