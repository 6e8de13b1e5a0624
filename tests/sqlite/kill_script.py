"""A program that does everything with a queue file once, and notes each step that it was told is done; see test_kills.

python -m tests.sqlite.kill_script FILE LEDGER
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from taskq.executors.sqlite import append_log
from taskq.executors.sqlite import jobs as sqlite_jobs
from taskq.executors.sqlite.store import SQLiteStore
from taskq.states import State
from taskq.store import ProgressUpdate
from tests.store_steps import job, said, worker

#: Jobs that are put together: all of them or none must be there.
BATCHES = (("a1", "a2", "a3"), ("b1",), ("big1",), ("c1", "c2"), ("short1",), ("d1",), ("e1",), ("f1",), ("g1",))


def main(path: str, ledger_path: str) -> None:
    """Submit, claim, update, send a heartbeat, finish, forget, checkpoint, leave, close."""
    sqlite_jobs.GRACE = 0.0
    append_log.ROTATE_AT = 400  # it is rotated more than once
    ledger = os.open(ledger_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def update(*words: str) -> None:
        os.write(ledger, (" ".join(words) + "\n").encode())

    store = SQLiteStore(f"sqlite://{path}")
    for batch in BATCHES:
        envelope = b"e" * (40_000 if batch[0].startswith("big") else 100)
        ttl = 0.0 if batch[0].startswith("short") else None
        store.put([job(one, envelope=envelope, result_ttl=ttl) for one in batch])
        update("put", *batch)
    member = store.join(worker("killed"))
    claims = list(member.poll([], [], 4).claims)
    member.heartbeat(worker("killed"), [(one.id, one.token) for one in claims])
    updates = [
        ProgressUpdate(id=one.id, token=one.token, progress=(1, 2), meta=b"\x80", log=b"text" * 500) for one in claims
    ]
    member.poll([], updates, 0)
    for first, second in ((0, 2), (2, 4)):
        outcomes = [said(one) for one in claims[first:second]]
        claims += member.poll(outcomes, [], 2).claims
        update("end", *(one.id for one in outcomes))
    again = claims[4]
    member.poll([said(again, State.SCHEDULED, delay=60.0)], [], 1)
    update("again", again.id)
    claims += member.poll([], [], 9).claims
    for number in range(3):  # after claims, before others
        store.put([job(f"h{number}")])
        update("put", f"h{number}")
    rest = [said(one) for one in claims if one.id not in {again.id, *(done.id for done in claims[:4])}]
    member.poll(rest, [], 0)
    update("end", *(one.id for one in rest))
    store.retry([again.id])
    store.cancel([again.id])
    update("cancel", again.id)
    store.database.page.frames = 9999  # the next commit makes a checkpoint
    store.put([job("late1")])
    update("put", "late1")
    member.run_maintenance()
    member.leave()
    store.close()


if __name__ == "__main__":
    # In a thread that signal handlers do not interrupt: all is done in it, so that its calls can be counted.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(main, *sys.argv[1:]).result()
