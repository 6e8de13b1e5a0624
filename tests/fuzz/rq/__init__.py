"""Garbage in Redis."""
