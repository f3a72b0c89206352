"""Curves and bars as inline SVG that takes its ink from the page, so dark mode works.

Drawn by matplotlib. No text that comes from a run enters a chart: names stand in the page's legend.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .runs import Run, Series

if TYPE_CHECKING:  # matplotlib is imported where it draws: curves are an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

#: One colour per run (Okabe and Ito, told apart by colour-blind readers), and one line style.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
STYLES: tuple[LineStyleType, ...]
STYLES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
DASHES = ("", "7 3", "2 3", "7 3 2 3")  # the same in the legend's SVG
INK, LINE = "#010203", "#010204"  # stand-ins, replaced by the page's colours
SIZE = (5.0, 2.9)  # inches at 72 points: text is true size where a chart is 360 pixels wide
SETTINGS: dict = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.size": 11,
    "font.family": "sans-serif",
    "lines.linewidth": 2,
    "lines.markersize": 4.5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), LINE),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "axes.grid.axis": "y",
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
}


def style(index: int) -> tuple[str, LineStyleType]:
    """Colour and line style of run number `index`."""
    return COLORS[index % len(COLORS)], STYLES[index % len(STYLES)]


def legend(runs: Sequence[Run]) -> list[tuple[str, str, str]]:
    """(name, colour, dashes of an SVG line) of every run."""
    return [(run.name, style(i)[0], DASHES[i % len(DASHES)]) for i, run in enumerate(runs)]


def _figure(height: float = SIZE[1]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # pyplot would choose a window system

    figure = Figure(figsize=(SIZE[0], height), dpi=72, layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Figure, name: str) -> str:
    """The figure's SVG element: no header, no fixed size, own ids, the page's fonts and colours."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r' xmlns(?::xlink)?="[^"]*"', "", text, count=2).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1; font-family: inherit", text)
    text = text.replace(INK, "var(--ink)").replace(LINE, "var(--line)")
    return text.replace("<svg ", '<svg role="img" ', 1).strip()


def line_chart(
    series: Sequence[tuple[int, Series]],
    name: str,
    *,
    level: float | None = None,
    percent: bool = False,
) -> str:
    """Values over training steps.

    Args:
        series: (number of the run, series) of every run that has one; values that are not finite
            are left out.
        name: goes into the ids, different for every chart of a page.
        level: a dotted line at this height, e.g. the true number of identities.
        percent: the axis ends at 0 and 100 at most, and starts at 0.
    """
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure()
        for index, (steps, values) in series:
            color, dashes = style(index)
            known = np.isfinite(values)
            marker = "o" if known.sum() <= 30 else ""
            axes.plot(steps[known], values[known], color=color, linestyle=dashes, marker=marker)
        if level is not None:
            axes.axhline(level, color=INK, linestyle=(0, (1, 2)), linewidth=1.2)
        if percent:
            axes.set_ylim(0, min(105, 1.06 * axes.dataLim.ymax) or 1)
        axes.set_xlabel("training step")
        axes.margins(x=0.03)
        axes.locator_params("x", integer=True)
        return _svg(figure, name)


def bar_chart(values: Sequence[tuple[int, float]], name: str, *, percent: bool) -> str:
    """One bar per run with its value, for what was measured only once."""
    import matplotlib

    with matplotlib.rc_context(SETTINGS | {"axes.grid.axis": "x"}):
        figure, axes = _figure(max(1.4, 0.8 + 0.5 * len(values)))
        for place, (index, value) in enumerate(values):
            axes.barh(place, value, height=0.55, color=style(index)[0])
            axes.annotate(
                f"{value:.1f}",
                (value, place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                weight="bold",
            )
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(values) - 0.3, -0.7)
        if percent:
            axes.set_xlim(0, 112)
            axes.set_xticks(range(0, 101, 20))
        else:
            axes.margins(x=0.15)
        return _svg(figure, name)


def size_chart(groups: Sequence[tuple[int, np.ndarray]], name: str) -> str:
    """How many clusters have how many images, as steps."""
    import matplotlib

    largest = max(int(sizes.max()) for _, sizes in groups)
    width = max(1, -(-largest // 30))
    edges = np.arange(0.5, largest + width + 0.5, width).tolist()
    with matplotlib.rc_context(SETTINGS):
        figure, axes = _figure()
        for index, sizes in groups:
            color, dashes = style(index)
            axes.hist(sizes, edges, color=color, alpha=0.35 if len(groups) > 1 else 0.8)
            axes.hist(sizes, edges, color=color, histtype="step", linestyle=dashes, linewidth=1.6)
        axes.set_xlabel("images in a cluster")
        axes.set_ylabel("clusters")
        axes.locator_params(integer=True)
        return _svg(figure, name)


def collect(runs: Sequence[Run], key: str, *, scale: float = 1.0) -> list[tuple[int, Series]]:
    """(number, series) of the runs that have a scalar; measurements by their first test set.

    A value before the first step ("start/mAP") is put in front at step 0.
    """
    found = []
    for index, run in enumerate(runs):
        series = run.scalars.get(run.measured(key))
        if series is None:
            continue
        start = run.scalars.get(f"start/{run.measured(key)}")
        steps, values = series
        if start is not None:
            steps = np.concatenate([[0], steps[steps > 0]])
            values = np.concatenate([start[1][:1], values[-(len(steps) - 1) :]])
        found.append((index, (steps, values * scale)))
    return found
