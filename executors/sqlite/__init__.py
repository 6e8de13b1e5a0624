"""The embedded queue: `sqlite:///path`, a store of jobs in one file. `store` shows how its files hang together."""
