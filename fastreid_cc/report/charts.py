"""Curves as inline SVG that takes its ink from the page, so dark mode works.

Drawn by matplotlib. No text that comes from a run enters a chart: names stand in the page's legend.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .runs import Run, Series

if TYPE_CHECKING:  # matplotlib is imported where it draws: curves are an extra
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.typing import LineStyleType

#: One colour per line (Okabe and Ito, told apart by colour-blind readers), and one line style. The
#: page has them as --c0, --c1, ..., lighter in the dark.
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


class Legend(NamedTuple):
    """A line of a legend: the number of its colour, and its dashes as SVG writes them."""

    name: str
    color: int
    dashes: str


def style(index: int) -> tuple[str, LineStyleType]:
    """Colour and line style of line number `index`."""
    return COLORS[index % len(COLORS)], STYLES[index % len(STYLES)]


def legend(names: Sequence[str]) -> list[Legend]:
    """The legend of lines 0, 1, ..."""
    return [Legend(name, i % len(COLORS), DASHES[i % len(DASHES)]) for i, name in enumerate(names)]


@contextmanager
def canvas(height: float = SIZE[1]) -> Iterator[tuple[Figure, Axes]]:
    """An empty chart in the page's style."""
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would choose a window system

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(SIZE[0], height), dpi=72, layout="constrained")
        yield figure, figure.add_subplot()


def to_svg(figure: Figure, name: str) -> str:
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
    for place, color in enumerate(COLORS):
        text = text.replace(color, f"var(--c{place})")
    return text.replace("<svg ", '<svg role="img" ', 1).strip()


def line_chart(
    lines: Sequence[tuple[int, Series]],
    name: str,
    *,
    last: int,
    top: float | None = None,
    level: float | None = None,
    marks: Sequence[tuple[int, str]] = (),
    is_count: bool = False,
) -> str:
    """Values over training steps; the axis starts at 0 unless a value lies below.

    Args:
        lines: (number of the line, series); values that are not finite are left out.
        name: goes into the ids, different for every chart of a page.
        last: the step that the chart ends at.
        top: where the axis ends; by default a little above the highest value.
        level: a dotted line at this height, e.g. the true number of identities.
        marks: (step, what ends there), drawn as an upright line.
        is_count: the axis has whole numbers.
    """
    with canvas() as (figure, axes):
        highest = 0.0 if level is None else level
        lowest = 0.0
        for index, (steps, values) in lines:
            color, dashes = style(index)
            known = np.isfinite(values)
            marker = "o" if known.sum() <= 30 else ""
            axes.plot(steps[known], values[known], color=color, linestyle=dashes, marker=marker)
            highest = max(highest, *values[known], 0)
            lowest = min(lowest, *values[known], 0)
        if level is not None:
            axes.axhline(level, color=INK, linestyle=(0, (1, 2)), linewidth=1.2)
        axes.set_ylim(1.08 * lowest, (top or 1.08 * highest) or 1)
        axes.set_xlim(-0.02 * last, 1.03 * last)
        for step, text in marks:
            _mark(axes, step, text, is_right=step > 0.6 * last)
        axes.set_xlabel("training step")
        axes.locator_params("x", integer=True, nbins=7)
        axes.locator_params("y", nbins=6, integer=is_count)
        return to_svg(figure, name)


def _mark(axes: Axes, at: float, text: str, *, is_right: bool) -> None:
    axes.axvline(at, color=INK, linestyle=(0, (4, 2)), linewidth=1)
    axes.annotate(
        text,
        (at, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if is_right else 4, 0),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="top",
        fontsize=10,
    )


def size_chart(groups: Sequence[tuple[int, np.ndarray]], name: str) -> str:
    """How many clusters have how many images, as steps."""
    largest = max(int(sizes.max()) for _, sizes in groups)
    width = max(1, -(-largest // 30))
    edges = np.arange(0.5, largest + width + 0.5, width).tolist()
    with canvas() as (figure, axes):
        for index, sizes in groups:
            color, dashes = style(index)
            axes.hist(sizes, edges, color=color, alpha=0.35 if len(groups) > 1 else 0.8)
            axes.hist(sizes, edges, color=color, histtype="step", linestyle=dashes, linewidth=1.6)
        axes.set_xlabel("images in a cluster")
        axes.set_ylabel("clusters")
        axes.set_xlim(0)
        axes.locator_params(integer=True)
        return to_svg(figure, name)


def pair_chart(kinds: Sequence[np.ndarray], threshold: float, name: str) -> str:
    """Similarities of two kinds of pairs as steps, each in percent of its pairs."""
    lowest = min(float(np.quantile(values, 0.001)) for values in kinds)
    edges = np.linspace(np.floor(10 * lowest) / 10, 1, 51).tolist()
    with canvas() as (figure, axes):
        for index, values in enumerate(kinds):
            color, dashes = style(index)
            share = np.full(len(values), 100 / len(values))
            clipped = np.clip(values, edges[0], edges[-1])
            axes.hist(clipped, edges, weights=share, color=color, alpha=0.3)
            kind: dict = {"histtype": "step", "linestyle": dashes, "linewidth": 1.6}
            axes.hist(clipped, edges, weights=share, color=color, **kind)
        axes.set_xlim(edges[0], 1)
        axes.margins(y=0.12)
        if np.isfinite(threshold):
            is_right = threshold > (edges[0] + 1) / 2
            _mark(axes, threshold, f"{threshold:.2f}", is_right=is_right)
        axes.set_xlabel("similarity of two images")
        axes.set_ylabel("% of pairs")
        return to_svg(figure, name)


def match_chart(curves: Sequence[tuple[int, np.ndarray]], name: str) -> str:
    """Cumulative matches over ranks 1, 2, ..., in percent."""
    with canvas() as (figure, axes):
        for index, shares in curves:
            color, dashes = style(index)
            ranks = np.arange(1, len(shares) + 1)
            axes.plot(ranks, 100 * shares, color=color, linestyle=dashes, marker="o")
        axes.set_ylim(0, 103)
        axes.set_xlabel("rank")
        axes.locator_params("x", integer=True)
        return to_svg(figure, name)


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
