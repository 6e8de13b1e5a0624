"""What keys do in `taskq top`: pure functions of what is looked at and what was seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from taskq.cli.screen import PLAIN, Screen
from taskq.cli.top.model import Detail, Order, Snapshot, Throughput
from taskq.cli.top.state import PANELS, View, press
from taskq.cli.top.view import picture, spark
from taskq.states import State
from taskq.store import QueueRecord, WorkerRecord
from tests.cli.fake_store import NOW, job_id, sample_store


def snapshot() -> Snapshot:
    """Return what is seen of the sample store."""
    store = sample_store()
    return Snapshot(
        url=store.url,
        now=NOW,
        queues=store.queues(),
        workers=store.workers(),
        running=store.list(states=(State.RUNNING,)),
        failed=store.list(states=(State.FAILED,)),
        rates=(0.0, 1.5, 3.0),
    )


def after(*keys: str, view: View | None = None) -> tuple[View, Order | None]:
    """Press keys; return what is looked at, and the last key's order."""
    view, order = view or View(), None
    for key in keys:
        view, order = press(view, key, snapshot())
    return view, order


def test_tab_goes_round_the_panels() -> None:
    """Both ways."""
    view = View()
    seen = []
    for _ in PANELS:
        view, _order = press(view, "tab", snapshot())
        seen.append(view.panel)
    assert sorted(seen) == sorted(PANELS)
    assert view.panel == View().panel
    assert after("tab", "backtab")[0].panel == View().panel


def test_a_row_stays_chosen_when_others_come() -> None:
    """What is chosen is a job, not a place."""
    view, _ = after("down")
    assert view.target(snapshot()) == job_id(5)
    more = replace(snapshot(), running=(replace(snapshot().running[0], id="NEW"), *snapshot().running))
    assert view.target(more) == job_id(5)
    fewer = replace(snapshot(), running=snapshot().running[:1])
    assert view.target(fewer) == job_id(6)


@pytest.mark.parametrize("keys", [("k",), ("up",), ("pageup",), ("home",), ("j", "g"), ("G", "k")])
def test_the_first_row(keys: tuple[str, ...]) -> None:
    """No key leads out of the panel."""
    assert after(*keys)[0].target(snapshot()) == job_id(6)


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        (("C",), Order(verb="cancel", target=job_id(6))),
        (("j", "K"), Order(verb="kill", target=job_id(5))),
        (("tab", "R"), Order(verb="retry", target=job_id(3))),
        (("enter", "C"), Order(verb="cancel", target=job_id(6))),
        (("backtab", "P"), Order(verb="pause", target="default")),
        (("backtab", "j", "P"), Order(verb="resume", target="mail")),
        (("P",), Order(verb="pause", target="reports")),
        (("c",), None),
        (("backtab", "C"), None),
        (("?", "C"), None),
    ],
)
def test_upper_case_keys_give_orders(keys: tuple[str, ...], order: Order | None) -> None:
    """For the chosen job or queue; lower case, and keys that close the help, do nothing."""
    assert after(*keys)[1] == order


def test_an_order_without_a_job_says_so() -> None:
    """And the next key takes the words away."""
    view, _ = after("backtab", "C")
    assert "for jobs" in view.message
    assert press(view, "j", snapshot())[0].message == ""


def test_enter_and_esc() -> None:
    """A job is looked at closely, and left."""
    view, _ = after("enter")
    assert view.detail == job_id(6)
    assert after("esc", view=view)[0].detail is None
    assert after("up", "up", "down", view=view)[0].scroll == 1
    assert after("backtab", "enter")[0].detail is None


def test_q_ends_it() -> None:
    """From everywhere but the help, which any key closes."""
    assert after("q")[0].done
    assert after("enter", "q")[0].done
    assert not after("?", "q")[0].done


@pytest.mark.parametrize("height", [5, 8, 14, 20, 24, 50])
@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("keys", [(), ("?",), ("enter",), ("tab",), ("backtab",)])
def test_the_picture_fills_the_screen(width: int, height: int, keys: tuple[str, ...]) -> None:
    """As many lines as the screen has, none wider, whatever is looked at."""
    view, _ = after(*keys)
    seen = replace(snapshot(), detail=Detail(record=snapshot().running[0], log=b"line\n" * 100))
    lines = picture(seen, view, Screen(width=width), height)
    assert len(lines) == height
    assert all(len("".join(text for text, _ in line)) <= width for line in lines)


def test_the_picture_of_nothing() -> None:
    """An empty store has all panels, each saying that it is empty."""
    lines = picture(Snapshot(url="sqlite:///q.db", now=NOW), View(), Screen(width=80), 24)
    text = "\n".join("".join(part for part, _ in line) for line in lines)
    assert "nothing runs" in text
    assert "no workers: taskq worker starts one" in text


def test_a_sparkline() -> None:
    """The highest is the height; of many values the last are shown; other encodings have other signs."""
    assert spark([0, 1, 2, 4], 10, Screen().signs) == "▁▃▅█"
    assert spark([9, 0, 0], 2, Screen().signs) == "▁▁"
    assert spark([0, 4], 10, PLAIN) == "_#"


def test_throughput_from_the_counts_of_ended_jobs() -> None:
    """Known at the second look; what is forgotten makes no negative speed."""
    throughput = Throughput()
    ended = [QueueRecord(name="default", counts={State.SUCCEEDED: count}) for count in (10, 30, 5)]
    assert throughput.add(NOW, ended[:1], []) == (0.0,)
    assert throughput.add(NOW + 2, ended[1:2], []) == (0.0, 10.0)
    assert throughput.add(NOW + 4, ended[2:], [])[-1] == 0.0


def test_throughput_from_the_workers_own_counts() -> None:
    """Between two reports of a worker its speed stays; a worker that is gone counts no more."""
    throughput = Throughput()

    def worker(seen_at: float, done: int) -> WorkerRecord:
        return WorkerRecord(
            name="w", host="h", pid=1, queues=("default",), processes=2, seen_at=seen_at, succeeded=done
        )

    throughput.add(NOW, [], [worker(NOW, 100)])
    assert throughput.add(NOW + 5, [], [worker(NOW + 5, 150)])[-1] == 10.0
    assert throughput.add(NOW + 6, [], [worker(NOW + 5, 150)])[-1] == 10.0
    assert throughput.add(NOW + 7, [], [])[-1] == 0.0
