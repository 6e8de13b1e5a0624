"""Where the jobs of a durable executor live and run in tests: a store of its own, and one worker on it.

    Places (of one variant, in one module)
        (processes, queues of the worker) ──▶ Place: store URL + `taskq worker`, started when first asked for

Starting a worker takes most of a second, so the tests of a module share the places; `clear` ends what a test has left
in them. A test that fails has its places thrown away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskq.connect import open_store
from taskq.states import TERMINAL, State
from tests.variants import PROCESSES
from tests.waiting import eventually
from tests.worker_process import IMPORTS, WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from taskq.store import JobRecord, Store

#: Bytes that an envelope or a result may have here: some tests send more than the default of 1 MiB.
QUERY = "?max_bytes=67108864"

#: Jobs that are looked at together.
BATCH = 10_000


class Place:
    """A store and a worker on it."""

    def __init__(self, url: str, worker: WorkerProcess) -> None:
        self.url = url
        self._worker = worker
        try:
            worker.start()
            worker.wait_until_ready()
        except BaseException:
            worker.close()
            raise

    def check(self) -> None:
        """Fail when the worker has ended: no test of the suite may cost it."""
        assert self._worker.is_running, f"the worker has ended:\n{self._worker.log()}"

    def clear(self) -> None:
        """End all jobs that a test has left, and take its pauses back."""
        store = open_store(self.url)
        try:
            for queue in store.queues():
                if queue.paused:
                    store.resume(queue.name)
            eventually(lambda: not _cancel_all(store), f"the jobs left in {self.url} to end")
        finally:
            store.close()

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def log(self) -> str:
        """Return what the worker has said."""
        return self._worker.log()


def _cancel_all(store: Store) -> list[JobRecord]:
    """Ask all jobs to end, and return those that have not."""
    left = store.list(states=set(State) - TERMINAL, limit=BATCH)
    if left:
        store.cancel([job.id for job in left], kill=True)
    return left


class Places:
    """The places of one durable variant."""

    def __init__(
        self,
        fresh_url: Callable[[], str],
        folder: Path,
        imports: Sequence[str] = (),
        to_worker: Callable[[str], str] = str,
    ) -> None:
        """Prepare them.

        `imports`: modules that their workers are told to trust besides `IMPORTS`; `to_worker`: gives the URL by which
        a worker reaches a store.
        """
        self._fresh_url = fresh_url
        self._to_worker = to_worker
        self._folder = folder
        self._imports = (*IMPORTS, *imports)
        self._places: dict[tuple[int, tuple[str, ...]], Place] = {}

    def get(self, processes: int = PROCESSES, queues: Sequence[str] = ()) -> Place:
        """Return the place whose worker has so many processes and these queues."""
        key = (processes, tuple(queues))
        if key not in self._places:
            url = self._fresh_url()
            worker = WorkerProcess(
                self._to_worker(url),
                self._folder,
                processes=processes,
                queues=queues,
                imports=self._imports,
                look_at=url,
            )
            self._places[key] = Place(url, worker)
        self._places[key].check()
        return self._places[key]

    def clear(self) -> None:
        """End all jobs that a test has left."""
        for place in self._places.values():
            place.clear()

    def close(self) -> None:
        """End all workers."""
        while self._places:
            self._places.popitem()[1].close()

    def logs(self) -> str:
        """Return what the workers have said."""
        return "\n".join(place.log() for place in self._places.values())
