"""Attacks on the ports of the services, each by its name."""
