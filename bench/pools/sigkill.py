"""What a SIGKILL does to a pool, told in words: to the task that ran, to other tasks, and to later ones."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import work

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.pools.system import PoolSystem

#: Other tasks that wait or run when the process is killed.
OTHERS = 20
#: Seconds that each of them sleeps.
NAP_S = 0.05
#: Seconds below which an answer came at once.
AT_ONCE_S = 0.1


class Answer:
    """What became of one call, awaited in a thread of its own because it may never come."""

    def __init__(self, wait: Callable[[], object]) -> None:
        """Start to wait."""
        self.word = "hangs"
        self.after_s: float | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(wait,), daemon=True)
        self._thread.start()

    def _run(self, wait: Callable[[], object]) -> None:
        try:
            wait()
            word = "done"
        except BaseException as error:  # noqa: BLE001 - any error is an answer
            word = type(error).__name__
        self.word, self.after_s = word, time.monotonic() - self._began

    def join(self, deadline: float) -> str:
        """Wait until then at most; return the word."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return self.word


def kill_running(system: PoolSystem, hang_s: float) -> dict[str, str]:
    """Kill the process that runs a task while other tasks wait."""
    path = Path(tempfile.mkdtemp(prefix="bench-"), "victim")
    # waits carry a time limit, since some pools cannot end while one goes on
    limit = hang_s + 1.0
    victim = system.submit(work.victim, str(path))
    _until(path.exists, 10.0)
    others = [system.submit(work.nap, NAP_S) for _ in range(OTHERS)]
    time.sleep(3 * NAP_S)
    os.kill(int(path.read_text(encoding="ascii")), signal.SIGKILL)
    deadline = time.monotonic() + hang_s
    answer = Answer(lambda: victim(limit))
    words = [other.join(deadline) for other in [Answer(_bound(wait, limit)) for wait in others]]
    answer.join(deadline)
    after = Answer(lambda: system.submit(work.increment, 1)(limit)).join(time.monotonic() + hang_s)
    path.unlink()
    path.parent.rmdir()
    return {"task": _fate(answer), "others": _fates(words), "pool": _usable(after).partition(",")[0]}


def kill_idle(system: PoolSystem, hang_s: float) -> dict[str, str]:
    """Kill one idle process of the pool, any, and use the pool."""
    waits = [system.submit(work.nap, NAP_S) for _ in range(2 * system.processes)]
    workers: list[Any] = sorted({wait(30.0) for wait in waits})
    time.sleep(0.3)  # until all are idle, whatever the pool does to get there
    os.kill(random.choice(workers), signal.SIGKILL)
    time.sleep(0.5)  # a pool that watches its processes has seen it by then
    deadline = time.monotonic() + hang_s
    return {"idle": _usable(Answer(lambda: system.submit(work.increment, 1)(hang_s + 1.0)).join(deadline))}


def _bound(wait: Callable[[float | None], object], limit: float) -> Callable[[], object]:
    return lambda: wait(limit)


def _until(condition: Callable[[], bool], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"the task that is to be killed did not start within {limit_s:g} s")
        time.sleep(0.005)


def _fate(answer: Answer) -> str:
    if answer.after_s is None:
        return "hangs, no error"
    what = "run again, result" if answer.word == "done" else answer.word
    return f"{what} at once" if answer.after_s < AT_ONCE_S else f"{what} after {answer.after_s:.2f} s"


def _fates(words: list[str]) -> str:
    lost = sum(word != "done" for word in words)
    return f"{lost} of {len(words)} lost" if lost else f"all {len(words)} done"


def _usable(word: str) -> str:
    return "works" if word == "done" else word if word == "hangs" else f"dead, {word}"
