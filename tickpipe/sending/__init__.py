"""Posting files of ticks and bars to a producer."""
