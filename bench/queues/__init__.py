"""The suites `redis` and `sqlite`: queues whose jobs outlive the process that submitted them."""
