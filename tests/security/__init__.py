"""Attacks on the doors of the services, each by its name."""
