"""What stands in front of every store: DurableExecutor, its jobs and maps, on a store in memory."""

from __future__ import annotations
