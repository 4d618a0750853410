"""Folding history again by resetting the offsets of the stream group."""
