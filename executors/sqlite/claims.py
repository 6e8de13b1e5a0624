"""Claims of jobs by a worker, and their outcomes.

    scheduled and due ──promote──▶ queued ──in order──▶ expired? failed : running, with a new fence

    outcome ──fence fits?──▶ completed (`jobs`), or queued again, now or later
              │ no: it came too late, another has the job by now ──▶ fenced
              └ it fits, but the job does not run: the same outcome came before ──▶ nothing to do

A job that a worker has refused stays in its place; the worker passes over it while another one may run it.
Tables and columns are those of `schema`.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from taskq.executors.sqlite.jobs import Completion, broken, complete_all, complete_many, pack
from taskq.executors.sqlite.schema import (
    CANCELLED,
    FAILED,
    LATEST,
    QUEUED,
    RUNNING,
    SCHEDULED,
    as_count,
    chunks,
    code_of,
    is_count,
    is_number,
    listed,
)
from taskq.failure import Failure
from taskq.states import TERMINAL, State
from taskq.store import Claim

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from taskq.executors.sqlite.database import Tx
    from taskq.executors.sqlite.schema import Execute
    from taskq.store import JobOutcome, ProgressUpdate

__all__ = [
    "BATCH",
    "LAST_CRASH",
    "LOG_LIMIT",
    "add_log",
    "apply_outcomes",
    "apply_updates",
    "begin",
    "claim",
    "claim_one",
    "claims_of",
    "expire",
    "forget_refusals",
    "is_work",
    "next_due",
    "no_longer_held",
    "not_refused",
    "promote",
    "refuse",
    "token_parts",
]

#: The names of the other workers that serve a queue.
OTHERS = (
    "SELECT name FROM workers WHERE name <> ? AND NOT stopping AND (queues = '' OR "
    "instr(',' || queues || ',', ',' || ? || ','))"
)


def _others(execute: Execute, queue: str, me: str) -> list[str]:
    return [row[0] for row in execute(OTHERS, (me, queue)).fetchall()]


def not_refused(execute: Execute, queue: str, me: str | None) -> tuple[str, tuple[Any, ...]]:
    """Return the condition, with its values, for jobs of a queue that this worker does not leave to others.

    `me`: its name; None: it has refused nothing yet.
    """
    others = _others(execute, queue, me) if me is not None else []
    if not others:
        return "", ()
    marks = ", ".join("?" * len(others))
    condition = (
        " AND NOT (EXISTS (SELECT 1 FROM refusals r WHERE r.n = jobs.n AND r.worker = ?) AND "
        f"(SELECT count(*) FROM refusals r WHERE r.n = jobs.n AND r.worker IN ({marks})) < ?)"
    )
    return condition, (me, *others, len(others))


def refuse(execute: Execute, n: int, queue: str, me: str) -> bool:
    """Note that this worker refuses a job; return whether another one may run it."""
    execute("INSERT OR IGNORE INTO refusals (n, worker) VALUES (?, ?)", (n, me))
    refused = {row[0] for row in execute("SELECT worker FROM refusals WHERE n = ?", (n,)).fetchall()}
    return not refused.issuperset(_others(execute, queue, me))


def forget_refusals(execute: Execute, name: str) -> None:
    """Forget what a worker has refused that is gone: another one may take its name."""
    execute("DELETE FROM refusals WHERE worker = ?", (name,))


#: Jobs that one transaction promotes or fails at most, so that nobody waits long behind it.
BATCH = 1000

COLUMNS = "n, id, fence, jobs.envelope, queue, attempts, crashes, retries, refused, expires, needs, meta"
#: The results that most jobs need.
NOTHING: Mapping[str, bytes] = MappingProxyType({})

#: Whether the next crash of a job is its last.
LAST_CRASH = "crashes >= max_crashes - 1"

#: Whether a claim has to look at what there mostly is none of: scheduled jobs that are due, crashed ones, pauses.
WHAT_IS_RARE = (
    "SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_due WHERE state = 1 AND due <= ?), "
    f"EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_crashed WHERE crashes > 0 AND state = {QUEUED} AND {LAST_CRASH}), "
    "EXISTS (SELECT 1 FROM paused)"
)

TAKE = (
    f"UPDATE jobs SET state = {RUNNING}, fence = fence + 1, attempts = attempts + 1, started = ?, worker = ? "
    "WHERE n IN "
)


def promote(tx: Tx) -> int:
    """Queue the scheduled jobs whose time has come; return how many."""
    query = "SELECT n FROM jobs INDEXED BY jobs_due WHERE state = 1 AND due <= ? ORDER BY due LIMIT ?"
    due = tx.execute(query, (tx.now, BATCH)).fetchall()
    if due:
        tx.executemany(f"UPDATE jobs SET state = {QUEUED} WHERE n = ?", due)
    return len(due)


def expire(tx: Tx) -> int:
    """Fail the jobs that have waited too long for their first start; return how many."""
    query = (
        "SELECT n, expires - submitted FROM jobs INDEXED BY jobs_expires "
        "WHERE expires IS NOT NULL AND state < 4 AND expires <= ? AND attempts = 0 ORDER BY expires LIMIT ?"
    )
    found = tx.execute(query, (tx.now, BATCH)).fetchall()
    for n, after in found:
        complete_all(tx, [n], FAILED, Failure.expired(after) if is_number(after) else broken())
    return len(found)


def claim(tx: Tx, worker: str, queues: Sequence[str], want: int, *, refuser: str | None = None) -> list[Claim]:
    """Take up to `want` jobs in the order of these queues; all queues by name if none are given.

    `refuser`: the worker's name once it has refused a job, see `not_refused`.
    """
    is_due, has_crashed, has_paused = tx.execute(WHAT_IS_RARE, (tx.now,)).fetchone()
    if is_due:
        promote(tx)
    suspects = _suspects(tx) if has_crashed or is_due else set()
    paused = {row[0] for row in tx.execute("SELECT queue FROM paused").fetchall()} if has_paused else set()
    found: list[tuple[Any, ...]] = []
    for queue in queues or _all_queues(tx.execute):
        if queue not in paused:
            found += _waiting(tx, queue, want - len(found), refuser)
            if suspects and (first := next((n for n, row in enumerate(found) if row[0] in suspects), None)) is not None:
                found = found[: max(first, int(not first and _holds_nothing(tx, worker)))]
                break
            if len(found) == want:
                break
    return _take(tx, worker, found)


def _suspects(tx: Tx) -> set[int]:
    """Return the waiting jobs whose next crash is their last: each runs by itself, so that it alone can be to blame.

    A worker takes one when it holds nothing, alone; until it holds nothing it takes no job that is behind one.
    """
    query = f"SELECT n FROM jobs INDEXED BY jobs_crashed WHERE crashes > 0 AND state = {QUEUED} AND {LAST_CRASH}"
    return {row[0] for row in tx.execute(query).fetchall()}


def _holds_nothing(tx: Tx, worker: str) -> bool:
    query = f"SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?)"
    return not tx.execute(query, (worker,)).fetchone()[0]


def _all_queues(execute: Execute) -> list[str]:
    """Return the queues in which jobs wait, each found by one step into the index."""
    query = (
        "SELECT CAST(min(queue) AS BLOB), typeof(min(queue)) FROM jobs INDEXED BY jobs_line "
        "WHERE state = 3 AND queue > CAST(? AS TEXT)"
    )
    found = []
    name, kind = execute(query, (b"",)).fetchone()
    while kind == "text":  # bytes stand behind all texts, and are no name
        found.append(name)
        name, kind = execute(query, (name,)).fetchone()
    return [name.decode() for name in found if name.isascii()]


def _waiting(tx: Tx, queue: str, count: int, refuser: str | None) -> list[tuple[Any, ...]]:
    """Return the rows of the first jobs of a queue; those that have expired are failed on the way."""
    mine, values = not_refused(tx.execute, queue, refuser)
    query = (
        f"SELECT {COLUMNS} FROM jobs INDEXED BY jobs_line WHERE state = {QUEUED} AND queue = ?{mine} "
        "ORDER BY rank, n LIMIT ?"
    )
    while True:
        rows = tx.execute(query, (queue, *values, count)).fetchall()
        if not any(type(row[9]) is float and row[9] <= tx.now and row[5] == 0 for row in rows):
            return rows
        expire(tx)


def _take(tx: Tx, worker: str, rows: list[tuple[Any, ...]]) -> list[Claim]:
    if not rows:
        return []
    claims = _claims(tx, rows, 1)
    for part in chunks([n for n, _ in claims]):
        marks, numbers = listed(part)
        tx.execute(TAKE + marks, (tx.now, worker, *numbers))
    return [claim for _, claim in claims]


def _claims(tx: Tx, rows: list[tuple[Any, ...]], step: int) -> list[tuple[int, Claim]]:
    """Make claims of rows; fail the jobs whose rows are damaged, so that they cost the others nothing."""
    claims: list[tuple[int, Claim]] = []
    for row in rows:
        try:
            claims.append((row[0], _claim(tx, row, step)))
        except (TypeError, ValueError, AttributeError):
            complete_all(tx, [row[0]], FAILED, broken())
    return claims


def _claim(tx: Tx, row: tuple[Any, ...], step: int) -> Claim:
    """Make a claim of a row; `step` is what a claim adds to the numbers in it."""
    n, job_id, fence, envelope, queue, attempts, crashes, retries, refused, _, needs, meta = row
    if envelope is None:
        envelope = tx.execute("SELECT envelope FROM blobs WHERE n = ?", (n,)).fetchone()[0]
    if type(envelope) is not bytes or (meta is not None and type(meta) is not bytes) or type(job_id) is not str:
        raise ValueError("the row is broken")
    if not all(map(is_count, (fence, attempts, crashes, retries))):
        raise ValueError("the row is broken")
    return Claim(
        id=job_id,
        token=f"{n}.{fence + step}",
        envelope=envelope,
        queue=queue,
        attempt=attempts + step,
        crashes=crashes,
        retries=retries,
        refused_for=0.0 if refused is None else max(0.0, tx.now - refused),
        results=_results(tx, needs.split(" ")) if needs else NOTHING,
        meta=meta or b"",
    )


def _results(tx: Tx, needs: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in chunks(needs):
        marks = ", ".join("?" * len(part))
        query = f"SELECT id, result FROM jobs WHERE id IN ({marks}) AND result IS NOT NULL"
        found.update(tx.execute(query, part).fetchall())
    if any(type(result) is not bytes for result in found.values()):
        raise ValueError("a result is broken")
    return found


def claim_one(tx: Tx, worker: str, job_id: str, *, refuser: str | None = None) -> Claim | None:
    """Take this job if it waits for its turn, whatever is before it."""
    promote(tx)
    expire(tx)
    place = tx.execute("SELECT queue FROM jobs WHERE id = ?", (job_id,)).fetchone()
    mine, values = not_refused(tx.execute, place[0], refuser) if place else ("", ())
    query = f"SELECT {COLUMNS} FROM jobs WHERE id = ? AND state = {QUEUED}{mine}"
    rows = tx.execute(query, (job_id, *values)).fetchall()
    return next(iter(_take(tx, worker, rows)), None)


def is_work(execute: Execute, queues: Sequence[str], refuser: str | None = None) -> bool:
    """Return whether a job waits for its turn in one of these queues, or in any; `refuser`: see `claim`."""
    return any(_is_work(execute, queue, refuser) for queue in queues or _all_queues(execute))


def _is_work(execute: Execute, queue: str, refuser: str | None) -> bool:
    mine, values = not_refused(execute, queue, refuser)
    query = (
        f"SELECT EXISTS (SELECT 1 FROM jobs INDEXED BY jobs_line WHERE state = 3 AND queue = ?{mine}) "
        "AND NOT EXISTS (SELECT 1 FROM paused WHERE queue = ?)"
    )
    return bool(execute(query, (queue, *values, queue)).fetchone()[0])


def next_due(execute: Execute) -> float | None:
    """Return when the next scheduled job may start."""
    query = f"SELECT min(due) FROM jobs INDEXED BY jobs_due WHERE state = 1 AND due < {LATEST}"
    found = execute(query).fetchone()[0]
    return None if found is None else float(found)


def claims_of(tx: Tx, worker: str, known: set[str]) -> list[Claim]:
    """Return again the jobs that this worker has claimed without having heard of it: its call failed afterwards."""
    query = f"SELECT {COLUMNS} FROM jobs INDEXED BY jobs_line WHERE state = {RUNNING} AND worker = ?"
    rows = tx.execute(query, (worker,)).fetchall()
    return [one for _, one in _claims(tx, rows, 0) if one.token not in known]


def token_parts(token: str) -> tuple[int, int]:
    """Return the number of the job that a token is for, and its fence; (0, 0) for one that is none of ours."""
    n, _, fence = token.partition(".")
    try:
        return int(n), int(fence)
    except ValueError:
        return 0, 0


#: Bytes kept of what a job prints.
LOG_LIMIT = 1_048_576

#: The columns of a claimed job that decide what becomes of it: n, id, fence, state, ear, ttl, needs, queue.
Row = tuple[int, str, int, int, "int | None", "float | None", "str | None", str]


def apply_outcomes(tx: Tx, outcomes: Sequence[JobOutcome], worker: str) -> list[str]:
    """Do what these outcomes of a worker say; return the ids of jobs that are not this worker's any more."""
    parts = [token_parts(outcome.token) for outcome in outcomes]
    rows = _rows(tx, parts)
    fenced: list[str] = []
    completions: list[Completion] = []
    for outcome, (n, fence) in zip(outcomes, parts, strict=True):
        row = rows.get(n)
        if row is None or row[1] != outcome.id or row[2] != fence:
            fenced.append(outcome.id)
        elif row[3] == RUNNING:
            rows[n] = (*row[:3], 0, *row[4:])  # a second outcome of the same call has nothing to say
            if outcome.log or outcome.meta is not None or outcome.progress is not None:
                _tell(tx, n, outcome)
            if outcome.refused:
                outcome = _refused(tx, n, row[7], outcome, worker)  # noqa: PLW2901  # what it comes to
            if outcome.state in TERMINAL:
                completions.append(_completion(row, outcome))
            elif not _cancel_instead(tx, row, outcome, completions):
                _put_back(tx, n, row[7], outcome)
    if completions:
        complete_many(tx, completions)
    return fenced


def _rows(tx: Tx, parts: Sequence[tuple[int, int]]) -> dict[int, Row]:
    found: dict[int, Any] = {}
    for part in chunks([n for n, _ in parts]):
        marks, numbers = listed(part)
        query = f"SELECT n, id, fence, state, ear, ttl, needs, queue FROM jobs WHERE n IN {marks}"
        for row in tx.execute(query, numbers).fetchall():
            found[row[0]] = row
    return found


def _completion(row: Row, outcome: JobOutcome) -> Completion:
    n, job_id, _, _, reply_to, ttl, needs, _ = row
    state, attempts = code_of(outcome.state), _attempts(outcome)
    result, failure = outcome.result, outcome.failure
    return Completion(n, job_id, reply_to, ttl, needs, state, result, failure, attempts, outcome.crashes)


def _attempts(outcome: JobOutcome) -> int:
    """Return how many attempts to add: the claim has counted one."""
    return outcome.attempts - 1 if outcome.started else -1


def _tell(tx: Tx, n: int, news: JobOutcome | ProgressUpdate) -> None:
    """Write down progress, meta and log."""
    if news.progress is not None:
        tx.execute("UPDATE jobs SET done = ?, total = ? WHERE n = ?", (*news.progress, n))
    if news.meta is not None:
        tx.execute("UPDATE jobs SET meta = ? WHERE n = ?", (news.meta, n))
    if news.log:
        add_log(tx, n, news.log)


def _cancel_instead(tx: Tx, row: Row, outcome: JobOutcome, completions: list[Completion]) -> bool:
    """End a job that would run again, where somebody has wished it cancelled."""
    if not tx.execute("SELECT EXISTS (SELECT 1 FROM wishes WHERE n = ?)", (row[0],)).fetchone()[0]:
        return False
    one = _completion(row, outcome)
    one.state, one.result, one.failure = CANCELLED, None, None
    completions.append(one)
    return True


def _refused(tx: Tx, n: int, queue: str, outcome: JobOutcome, worker: str) -> JobOutcome:
    """Note that a worker cannot run a job, and why; return what becomes of it: others may run it."""
    is_left = refuse(tx.execute, n, queue, worker)
    tx.execute("UPDATE jobs SET failure = ? WHERE n = ?", (pack(outcome.failure), n))
    return replace(outcome, state=State.QUEUED, delay=0.0) if is_left else outcome


def _put_back(tx: Tx, n: int, queue: str, outcome: JobOutcome) -> None:
    """Queue a job again: at its old place, which is before all that came later."""
    later = outcome.delay > 0
    tx.execute(
        "UPDATE jobs SET state = ?, due = ?, attempts = max(0, attempts + ?), crashes = crashes + ?, "
        "retries = retries + ?, refused = CASE WHEN ? THEN NULL WHEN ? THEN coalesce(refused, ?) ELSE refused END "
        "WHERE n = ?",
        (
            SCHEDULED if later else QUEUED,
            tx.now + outcome.delay if later else None,
            _attempts(outcome),
            outcome.crashes,
            outcome.state is State.SCHEDULED,
            outcome.refused and not later,
            outcome.refused,
            tx.now,
            n,
        ),
    )
    tx.queued[queue] = tx.queued.get(queue, 0) + 1


def apply_updates(tx: Tx, updates: Sequence[ProgressUpdate]) -> list[str]:
    """Write down what running jobs have said; return the ids of those that are not this worker's any more."""
    parts = [token_parts(update.token) for update in updates]
    rows = _rows(tx, parts)
    fenced: list[str] = []
    for update, (n, fence) in zip(updates, parts, strict=True):
        row = rows.get(n)
        if row is None or row[1] != update.id or row[2] != fence:
            fenced.append(update.id)
        elif row[3] == RUNNING:
            _tell(tx, n, update)
    return fenced


def add_log(tx: Tx, n: int, text: bytes) -> None:
    """Append to a job's log; what is beyond its limit is only counted."""
    row = tx.execute("SELECT kept, left_out FROM log_sizes WHERE n = ?", (n,)).fetchone()
    kept, left_out = map(as_count, row or (0, 0))
    taken = text[: max(0, LOG_LIMIT - kept)]
    if taken:
        tx.execute("INSERT OR REPLACE INTO logs (n, start, data) VALUES (?, ?, ?)", (n, kept, taken))
    sizes = (n, kept + len(taken), left_out + len(text) - len(taken))
    tx.execute("INSERT OR REPLACE INTO log_sizes (n, kept, left_out) VALUES (?, ?, ?)", sizes)


def no_longer_held(tx: Tx, claims: Collection[tuple[str, str]]) -> list[str]:
    """Return the ids of those (id, token) that are not running under this token any more."""
    ids = [job_id for job_id, _ in claims]
    parts = [token_parts(token) for _, token in claims]
    rows = _rows(tx, parts)
    lost: list[str] = []
    for job_id, (n, fence) in zip(ids, parts, strict=True):
        row = rows.get(n)
        if row is None or row[1] != job_id or row[2] != fence or row[3] != RUNNING:
            lost.append(job_id)
    return lost


def begin(tx: Tx, claims: Sequence[tuple[str, str]]) -> list[str]:
    """Note that jobs begin; return the ids of those that are not running under their token any more."""
    lost = no_longer_held(tx, claims)
    rows = [token_parts(token) for job_id, token in claims if job_id not in lost]
    tx.executemany("INSERT OR REPLACE INTO begun (n, fence) VALUES (?, ?)", rows)
    return lost
