"""The store in Redis: its scripts, its likeness to stock RQ, its faults."""
