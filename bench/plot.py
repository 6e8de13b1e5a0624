"""Draw a run as one picture: a panel for each figure, a bar for each system's best way, taskq highlighted.

The only module that imports matplotlib.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.tables import number

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

    from bench.suite import Metric, Panel
    from bench.summary import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: the best way of a system."""

    system: str
    name: str
    value: float

    @property
    def ours(self) -> bool:
        """Whether it is taskq, with whatever settings."""
        return self.system.startswith("taskq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A panel with its bars, best first."""

    panel: Panel
    metric: Metric
    bars: list[Bar]


#: Panels side by side.
COLUMNS = 3
#: Bars: taskq, taskq with fork, peers.
OURS, OURS_FORK, THEIRS = "#d9480f", "#f4a261", "#b8c4d0"
#: Text: plain, less important, beside peers, where taskq is behind.
INK, FAINT, PEERS_INK, BEHIND = "#1f2933", "#7b8794", "#8d9db0", "#3b6ea5"


def draw(path: Path, summary: Summary, title: str, footer: str) -> None:
    """Write the picture of the panels for which there are figures."""
    shown = [found for panel in summary.suite.panels if (found := _shown(summary, panel)).bars]
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(4.4 * COLUMNS, 2.6 * rows + 0.9), dpi=110, layout="constrained", facecolor="white")
    figure.set_layout_engine("constrained", h_pad=0.11, w_pad=0.06)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes, each in zip(grid.flat, shown, strict=False):
        _panel(axes, each)
    free = list(grid.flat)[len(shown) :]
    for axes in free:
        axes.set_axis_off()
    if free:
        _legend(free[-1], shown)
    figure.suptitle(title, x=0.01, ha="left", fontsize=15, weight="bold", color=INK)
    figure.supxlabel(footer, x=0.01, ha="left", fontsize=7, color=FAINT, wrap=True)
    figure.savefig(path)


def _shown(summary: Summary, panel: Panel) -> Shown:
    """Find the best way of each system, best system first."""
    metric = summary.suite.tests[panel.test].metric(panel.metric)
    cases = summary.cases(panel.test)
    bars = []
    for system in dict.fromkeys(case.system for case in cases):
        best = summary.best(metric, [case for case in cases if case.system == system])
        if best:
            name = summary.suite.system(system).title.removeprefix("multiprocessing.")
            bars.append(Bar(system=system, name=name, value=best[1]))
    bars.sort(key=lambda bar: -bar.value if metric.more else bar.value)
    return Shown(panel=panel, metric=metric, bars=bars)


def _panel(axes: Axes, shown: Shown) -> None:
    """Draw one panel: title, bars, and what stands at their ends."""
    bars = shown.bars
    start = _scale(axes, shown.panel, [bar.value for bar in bars])
    lengths = [bar.value - start for bar in bars]
    axes.barh(range(len(bars)), lengths, left=start, color=[_color(bar) for bar in bars])
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars], fontsize=8.5, color=INK)
    axes.invert_yaxis()
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_fontweight("bold" if bar.ours else "normal")
    better = "more is better" if shown.metric.more else "less is better"
    axes.set_title(f"{shown.panel.unit}, {better}", loc="left", fontsize=8, color=FAINT, pad=2)
    _write(axes, shown.panel.title, at=(0, 1), frame="axes fraction", shift=(0, 15), fontsize=11, weight="bold")
    _label(axes, shown)


def _label(axes: Axes, shown: Shown) -> None:
    """Write each value at the end of its bar, and beside it how many times better taskq is."""
    metric = shown.metric
    ours = next((bar.value for bar in shown.bars if bar.system == "taskq"), None)
    for row, bar in enumerate(shown.bars):
        value = number(bar.value, metric.decimals)
        text = _write(axes, value, at=(bar.value, row), frame="data", shift=(4, 0), va="center", fontsize=8.5)
        if shown.panel.ratios and ours and bar.value > 0 and not bar.ours:
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


def _legend(axes: Axes, shown: list[Shown]) -> None:
    """Explain colours and ratios in a free panel."""
    axes.set_axis_off()
    names = {bar.system: bar.name for each in shown for bar in each.bars if bar.ours}
    logarithmic = sum(each.panel.floor is None for each in shown)
    lines = (
        *((name, OURS if system == "taskq" else OURS_FORK, "bold") for system, name in names.items()),
        ("peers", PEERS_INK, "bold"),
        ("", INK, "normal"),
        ("2.5x  taskq is 2.5 times better", OURS, "bold"),
        ("0.8x  taskq is behind", BEHIND, "bold"),
        ("", INK, "normal"),
        (f"The first {logarithmic} panels are logarithmic.", FAINT, "normal"),
    )
    for row, (text, color, weight) in enumerate(lines):
        at = (0.0, 0.92 - 0.12 * row)
        _write(axes, text, at, "axes fraction", (0, 0), color=color, weight=weight, fontsize=9)


def _color(bar: Bar) -> str:
    return {"taskq": OURS, "taskq-fork": OURS_FORK, "taskq-signed": OURS_FORK}.get(bar.system, THEIRS)
