"""The way over from an older collection stack."""
