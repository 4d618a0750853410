"""The sink: candles and broker's bars from Kafka into the table `market_data`, each exactly as often as needed."""
