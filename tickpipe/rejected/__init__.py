"""Listing, resending and deleting rejected records."""
