"""What happens to durable jobs when workers, stores and networks fail: real processes, real servers, counted runs."""

from __future__ import annotations
