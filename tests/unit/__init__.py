"""Tests of single modules, without child processes."""
