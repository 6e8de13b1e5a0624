"""What happens when processes die, hang, freeze or cannot be started: real signals, counted runs."""

from __future__ import annotations
