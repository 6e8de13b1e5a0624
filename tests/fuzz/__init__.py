"""Tests that put garbage wherever taskq reads."""
