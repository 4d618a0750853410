"""What the services share with the outside world: settings, logs, Kafka, HTTP, telemetry. The domain is marketdata."""
