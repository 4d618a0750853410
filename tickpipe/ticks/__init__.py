"""Ticks out again: the command, and the forms in which it writes them."""
