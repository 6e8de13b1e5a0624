"""`taskq worker`: the daemon that serves a store's queues. `daemon` shows how its files hang together."""
