"""The interface of all systems under test; the adapters, one small file each, stand beside their suite.

An adapter imports its library in `open`: the driver reads `ways` even where the library is missing, and one of the
tests counts the import. For that test this module and the adapters import next to nothing themselves.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod

TYPE_CHECKING = False  # not `from typing import ...`: that import would be counted in the test `start`
if TYPE_CHECKING:
    from typing import ClassVar

    Figures = dict[str, float] | dict[str, str]


class System(ABC):
    """Adapt one library."""

    #: Name in tables and pictures.
    title: ClassVar[str]
    #: Module that is its library; its absence leaves the system out.
    imports: ClassVar[str]
    #: Distributions whose versions are recorded; none for the standard library.
    distributions: ClassVar[tuple[str, ...]] = ()
    #: Virtual environment beside .venv where it does not agree with the others' requirements; "": the same.
    environment: ClassVar[str] = ""
    #: Test -> the ways in which this system runs it. A test that is not named here is not run.
    ways: ClassVar[dict[str, tuple[str, ...]]]

    def __init__(self, processes: int) -> None:
        """Remember the number of processes; nothing starts before `open`."""
        self.processes = processes
        #: Whether there is something that can be closed in an orderly way.
        self.usable = False

    @abstractmethod
    def measure(self, way: str, test: str, scale: str) -> Figures:
        """Run one test in this process; return its figures, or answers in words."""

    @abstractmethod
    def open(self) -> None:
        """Import the library and start what it needs, by its defaults but for the number of processes."""

    @abstractmethod
    def close(self) -> None:
        """End what `open` has started."""


def load(module: str, name: str) -> type[System]:
    """Return the adapter class of that name."""
    __import__(module)
    adapter: type[System] = getattr(sys.modules[module], name)
    return adapter
