"""The worker daemon: its loop, its pool, what it tells."""
