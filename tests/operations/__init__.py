"""What operators do to a running pipeline, on a real Kafka and a real PostgreSQL."""
