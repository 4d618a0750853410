"""The embedded stack: a real Kafka, a real PostgreSQL and every service on one Linux machine, without Docker."""
