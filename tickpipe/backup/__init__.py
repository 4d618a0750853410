"""Backup and restore: one file that holds the database and, if wanted, the topics."""
