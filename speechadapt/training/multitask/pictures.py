"""Pictures of the matrix of adapters and tasks, and of who speaks in which layer for which task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechadapt.core.errors import ConfigError, MissingExtra
from speechadapt.core.files import atomic_write
from speechadapt.training.multitask.matrix import TaskRates

Routing = Mapping[str, Mapping[str, Sequence[float]]]


def draw_matrix(matrix: Mapping[str, TaskRates], rate: str, output: Path) -> None:
    """Draw the error rate of every adapter on every task.

    Args:
        matrix: Rates by adapter and task.
        rate: `wer` or `cer`.
        output: A .png file.

    Raises:
        ConfigError: There is nothing to draw.
        MissingExtra: matplotlib is not installed.
    """
    tasks = list(dict.fromkeys(task for row in matrix.values() for task in row))
    if not tasks:
        raise ConfigError("a picture of adapters by tasks was asked for, but none was scored.")
    figure = _figure(2.4 + 0.52 * len(tasks), 1.6 + 0.34 * len(matrix))
    axes = figure.subplots()
    values = [[100 * row[task][rate] for task in tasks] for row in matrix.values()]
    shown = axes.imshow(values, cmap="viridis_r", vmin=0, vmax=100, aspect="auto")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            colour = "white" if value > 50 else "black"
            axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    _ticks(axes, tasks, list(matrix))
    axes.set_xlabel("task")
    axes.set_ylabel("adapter")
    figure.colorbar(shown, label=f"{rate.upper()} %")
    _save(figure, output)


def draw_routing(weights: Routing, parts: Sequence[str], output: Path) -> None:
    """Draw the mean weight of every part, a panel for each site.

    Args:
        weights: By task and site, one number per part.
        parts: Names of the parts.
        output: A .png file.

    Raises:
        ConfigError: There is nothing to draw.
        MissingExtra: matplotlib is not installed.
    """
    sites = list(dict.fromkeys(site for row in weights.values() for site in row))
    if not sites:
        raise ConfigError("a picture of routing was asked for, but no weights were noted.")
    tasks, columns = list(weights), min(3, len(sites))
    rows = -(-len(sites) // columns)
    figure = _figure(1.6 + columns * (0.6 + 0.2 * len(parts)), rows * (1.0 + 0.22 * len(tasks)))
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    most = max(one for row in weights.values() for values in row.values() for one in values)
    for number, panel in enumerate(panels.flat):
        if number >= len(sites):
            panel.set_axis_off()
            continue
        values = [weights[task][sites[number]] for task in tasks]
        shown = panel.imshow(values, cmap="magma_r", vmin=0, vmax=most, aspect="auto")
        panel.set_title(sites[number], fontsize=8)
        _ticks(panel, list(parts), tasks)
    figure.colorbar(shown, ax=panels, label="mean weight")
    _save(figure, output)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "a picture of several tasks") from error
    figure = Figure(figsize=(width, height), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _ticks(axes: Any, columns: Sequence[str], rows: Sequence[str]) -> None:
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)


def _save(figure: Any, output: Path) -> None:
    # without its version in the file, the same figures give the same picture
    atomic_write(
        output, lambda path: figure.savefig(path, format="png", metadata={"Software": None})
    )
