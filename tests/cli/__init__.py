"""Tests of the command line: the installed command, run as users run it."""
