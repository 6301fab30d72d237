"""A comparison of adapter methods as Markdown, and as a picture: score against every cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechadapt.core.errors import MissingExtra
from speechadapt.core.files import atomic_write
from speechadapt.models.card import table

_HEADER = (
    "method",
    "trained",
    "of the encoder",
    "dev score",
    "rate",
    "training step",
    "forward pass",
    "merges",
    "is told",
)
# what stands on the axes below the score, or on the one beside the trained parameters
_COSTS = (
    ("trained", "trained parameters", "log"),
    ("step", "training step, times full fine-tuning", "linear"),
    ("forward", "forward pass, times the bare encoder", "linear"),
)


def markdown(report: Mapping[str, Any]) -> str:
    """Return the table of a report, losers included.

    Args:
        report: Facts and `rows`, as `speechadapt bench adapters` gathers them.
    """
    rows = sorted(report["rows"], key=_place)
    measured = [_cells(row, report["encoder"]) for row in rows if "problem" not in row]
    refused = [f"- {row['method']}: {row['problem']}" for row in rows if "problem" in row]
    unscored = [f"- {row['method']}: {row['unscored']}" for row in rows if "unscored" in row]
    parts = [
        "# Adapter methods compared",
        f"{report['date']}, {report['environment']}. `{report['model']}`, adapters as wide as "
        f"{report['share']:g} % of the encoder's {report['encoder']:,} parameters allow, where a "
        "method has a width. Times are those of "
        f"{report['rounds']} rounds (median), the bare encoder and full fine-tuning being 1. "
        + _scored(report),
        table(_HEADER, measured),
    ]
    parts += ["Not scored:", "\n".join(unscored)] if unscored else []
    parts += ["Not for this encoder:", "\n".join(refused)] if refused else []
    return "\n\n".join(parts) + "\n"


def figure_class() -> Any:
    """Return matplotlib's figures; asked before anything is measured.

    Raises:
        MissingExtra: The extra `report` is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "a picture of the comparison") from error
    return Figure


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw score against trained parameters, training step and forward pass, a point a method.

    Without scores, both times are drawn against the trained parameters.

    Args:
        report: As `markdown` takes it.
        path: The picture's file; its ending says which format.

    Raises:
        MissingExtra: The extra `report` is not installed.
    """
    rows = [row for row in report["rows"] if "problem" not in row]
    scored = [row for row in rows if "score" in row]
    height = ("score", f"error on dev, {report['recipe']}", scored) if scored else None
    panels = _COSTS if height else _COSTS[1:]
    figure = figure_class()(figsize=(5.5 * len(panels), 5.5))
    for number, (cost, label, scale) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        if height:
            across, up, shown = cost, height[0], scored
            axes.set(xlabel=label, ylabel=height[1], xscale=scale)
        else:
            across, up, shown = "trained", cost, rows
            axes.set(xlabel=_COSTS[0][1], ylabel=label, xscale="log")
        _points(axes, [row for row in shown if row.get(across) and up in row], across, up)
    figure.suptitle(f"{report['model']}, {report['environment']}", fontsize=8)
    figure.tight_layout()
    kind = path.suffix.lstrip(".")
    atomic_write(path, lambda place: figure.savefig(place, format=kind, dpi=130))


def _points(axes: Any, rows: Sequence[Mapping[str, Any]], across: str, up: str) -> None:
    for row in rows:
        axes.plot(row[across], row[up], "s" if row["method"] in ("full", "head") else "o")
        axes.annotate(
            row["method"],
            (row[across], row[up]),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=7,
        )
    axes.grid(alpha=0.3)


def _place(row: Mapping[str, Any]) -> tuple[float, str]:
    return row.get("score", float("inf")), row["method"]


def _scored(report: Mapping[str, Any]) -> str:
    if not report["recipe"]:
        return "Speed alone: no recipe was named."
    rates = ", ".join(f"{rate:g}" for rate in report["rates"]) or "each method's own"
    full = ", ".join(f"{rate:g}" for rate in report["full_rates"]) or "the recipe's"
    return (
        f"Scores: error on dev of `{report['recipe']}`, {report['steps']} steps, one seed; the "
        f"best of the rates {rates}, full fine-tuning {full}."
    )


def _cells(row: Mapping[str, Any], encoder: int) -> tuple[object, ...]:
    return (
        row["method"],
        f"{row['trained']:,}",
        f"{100 * row['trained'] / encoder:.2f} %",
        f"{100 * row['score']:.1f} %" if "score" in row else "-",
        f"{row['rate']:g}" if "rate" in row else "-",
        f"{row['step']:.2f}x" if "step" in row else "-",
        f"{row['forward']:.2f}x",
        {True: "yes", False: "no", None: ""}[row.get("merges")],
        ", ".join(row.get("told", ())),
    )
