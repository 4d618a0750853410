"""The embedded stack: a real Kafka, a real PostgreSQL and every service on one Linux machine, without Docker.

`servers` gives tests the two servers alone, `stack` runs everything under `supervisor`.
"""
