"""The queue file behind sqlite://: its store, its durability, its ways to die."""
