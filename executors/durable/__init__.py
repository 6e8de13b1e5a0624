"""The executor of durable jobs: they live in a store, and run in the workers on it, whoever started those."""
