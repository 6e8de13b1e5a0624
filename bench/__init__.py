"""The benchmark of taskq and its peers: `python -m bench` (see README.md in this folder)."""
