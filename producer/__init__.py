"""HTTP in, `ticks` out: what the EAs, the relay and the exporter post becomes frames in Kafka."""
