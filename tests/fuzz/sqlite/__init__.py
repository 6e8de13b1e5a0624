"""Garbage in a queue file."""
