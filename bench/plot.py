"""Draw a run as one picture: a panel for each figure, a bar for each system's best way, taskq highlighted.

The only module that imports matplotlib.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.catalog import TESTS
from bench.systems import load
from bench.tables import number

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

    from bench.catalog import Metric
    from bench.measure import Case
    from bench.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What one panel shows. `floor`: where a linear axis starts; None: a logarithmic axis."""

    test: str
    metric: str
    title: str
    unit: str
    floor: float | None = None
    #: Whether ratios mean something; those of a few hundred kB of memory do not.
    ratios: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: the best way of a system."""

    case: Case
    value: float


PANELS = (
    Panel(test="noop-int", metric="tasks_per_s", title="No-op tasks, ints", unit="tasks/s"),
    Panel(test="noop-dict", metric="tasks_per_s", title="No-op tasks, small dicts", unit="tasks/s"),
    Panel(test="submit", metric="tasks_per_s", title="submit + result", unit="tasks/s"),
    Panel(test="latency", metric="p50_us", title="Latency of one job, p50", unit="microseconds"),
    Panel(test="latency", metric="p99_us", title="Latency of one job, p99", unit="microseconds"),
    Panel(test="bytes", metric="mb_per_s", title="1 MB in and out", unit="MB/s"),
    Panel(test="cpu", metric="efficiency", title="Tasks of 1 ms CPU", unit="share of the ideal speed", floor=0.0),
    Panel(
        test="mixed",
        metric="over_ideal",
        title="Long tasks among short ones",
        unit="time / ideal time, from 1.0",
        floor=1.0,
    ),
    Panel(
        test="lazy",
        metric="grew_mb",
        title="Memory over a lazy input",
        unit="MB grown",
        floor=0.0,
        ratios=False,
    ),
    Panel(test="start", metric="first_result_ms", title="Start to first result", unit="ms", floor=0.0),
    Panel(test="import", metric="import_ms", title="Import", unit="ms", floor=0.0),
)
#: Panels side by side.
COLUMNS = 3
#: Bars: taskq, taskq with fork, peers.
OURS, OURS_FORK, THEIRS = "#d9480f", "#f4a261", "#b8c4d0"
#: Text: plain, less important, beside peers, where taskq is behind.
INK, FAINT, PEERS_INK, BEHIND = "#1f2933", "#7b8794", "#8d9db0", "#3b6ea5"


def draw(path: Path, summary: Summary, title: str, footer: str) -> None:
    """Write the picture of the panels for which there are figures."""
    shown = [(panel, bars) for panel in PANELS if (bars := _bars(summary, panel))]
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(4.4 * COLUMNS, 2.6 * rows + 0.9), dpi=110, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.11, w_pad=0.06)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes, (panel, bars) in zip(grid.flat, shown, strict=False):
        _panel(axes, panel, bars)
    free = list(grid.flat)[len(shown) :]
    for axes in free:
        axes.set_axis_off()
    if free:
        _legend(free[-1])
    figure.suptitle(title, x=0.01, ha="left", fontsize=15, weight="bold", color=INK)
    figure.supxlabel(footer, x=0.01, ha="left", fontsize=7, color=FAINT, wrap=True)
    figure.savefig(path)


def _bars(summary: Summary, panel: Panel) -> list[Bar]:
    """Find the best way of each system, best system first."""
    metric = _metric(panel)
    cases = summary.cases(panel.test)
    bests = [
        summary.best(metric, [case for case in cases if case.system == system])
        for system in dict.fromkeys(case.system for case in cases)
    ]
    found = [Bar(case=best[0], value=best[1]) for best in bests if best]
    return sorted(found, key=lambda bar: -bar.value if metric.more else bar.value)


def _metric(panel: Panel) -> Metric:
    return next(metric for metric in TESTS[panel.test].metrics if metric.key == panel.metric)


def _panel(axes: Axes, panel: Panel, bars: list[Bar]) -> None:
    """Draw one panel: title, bars, and what stands at their ends."""
    start = _scale(axes, panel, [bar.value for bar in bars])
    lengths = [bar.value - start for bar in bars]
    axes.barh(range(len(bars)), lengths, left=start, color=[_color(bar) for bar in bars])
    axes.set_yticks(range(len(bars)), [_name(bar) for bar in bars], fontsize=8.5, color=INK)
    axes.invert_yaxis()
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if _is_taskq(bar) else "normal")
    better = "more is better" if _metric(panel).more else "less is better"
    axes.set_title(f"{panel.unit}, {better}", loc="left", fontsize=8, color=FAINT, pad=2)
    _write(axes, panel.title, at=(0, 1), frame="axes fraction", shift=(0, 15), fontsize=11, weight="bold")
    _label(axes, panel, bars)


def _label(axes: Axes, panel: Panel, bars: list[Bar]) -> None:
    """Write each value at the end of its bar, and beside it how many times better taskq is."""
    metric = _metric(panel)
    ours = next((bar.value for bar in bars if bar.case.system == "taskq"), None)
    for row, bar in enumerate(bars):
        value = number(bar.value, metric.decimals)
        text = _write(axes, value, at=(bar.value, row), frame="data", shift=(4, 0), va="center", fontsize=8.5)
        if panel.ratios and ours and bar.value > 0 and not _is_taskq(bar):
            ratio = ours / bar.value if metric.more else bar.value / ours
            style = {"weight": "bold", "color": OURS if ratio >= 1 else BEHIND}
            _write(axes, f"{ratio:.1f}x", (1, 0.5), text, (6, 0), va="center", fontsize=8.5, **style)


def _write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    frame: str | Annotation,
    shift: tuple[float, float],
    **style: Any,
) -> Annotation:
    """Write text at a point of a frame (data, axes, or another text), shifted by some points."""
    style = {"color": INK, **style}
    return axes.annotate(text, at, xycoords=frame, xytext=shift, textcoords="offset points", **style)


def _scale(axes: Axes, panel: Panel, values: list[float]) -> float:
    """Set the axis, with room for the labels at the right; return where the bars start."""
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(axis="x", labelbottom=False, bottom=False, which="both")
    axes.tick_params(axis="y", length=0)
    most = max(values)
    if panel.floor is not None:
        axes.set_xlim(panel.floor, panel.floor + 1.4 * (most - panel.floor) or 1.0)
        return panel.floor
    start = min(values) / 3
    axes.set_xscale("log")
    axes.set_xlim(start, most * (most / start) ** 0.5)
    return start


def _legend(axes: Axes) -> None:
    """Explain colours and ratios in a free panel."""
    axes.set_axis_off()
    lines = (
        ("taskq, forkserver (its default)", OURS, "bold"),
        ("taskq, fork (as most peers by default)", OURS_FORK, "bold"),
        ("peers", PEERS_INK, "bold"),
        ("", INK, "normal"),
        ("2.5x  taskq is 2.5 times better", OURS, "bold"),
        ("0.8x  taskq is behind", BEHIND, "bold"),
        ("", INK, "normal"),
        ("The first six panels are logarithmic.", FAINT, "normal"),
    )
    for row, (text, color, weight) in enumerate(lines):
        at = (0.0, 0.92 - 0.12 * row)
        _write(axes, text, at, "axes fraction", (0, 0), color=color, weight=weight, fontsize=9)


def _name(bar: Bar) -> str:
    return load(bar.case.system).title.removeprefix("multiprocessing.")


def _color(bar: Bar) -> str:
    return {"taskq": OURS, "taskq-fork": OURS_FORK}.get(bar.case.system, THEIRS)


def _is_taskq(bar: Bar) -> bool:
    return bar.case.system.startswith("taskq")
