"""Programs that show taskq at work; each can be run as it stands."""
