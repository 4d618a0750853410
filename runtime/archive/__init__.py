"""The archive of the ticks: how it is laid out, and reading it. `archive/` is the service that writes it."""
