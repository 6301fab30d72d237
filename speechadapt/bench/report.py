"""A comparison of decoders as Markdown, and its cost against length as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from speechadapt.core.errors import MissingExtra
from speechadapt.core.files import atomic_write
from speechadapt.models.card import table

_STAGES = ("encode", "decode", "total")


def markdown(report: Mapping[str, Any]) -> str:
    """Return the tables of a report.

    Args:
        report: As `compare_decoders` gives it.
    """
    parts = [
        "# Decoders compared",
        f"{report['date']}, {report['environment']['line']}, median of {report['rounds']} rounds. "
        "Seconds are of a pass over all clips; `total` holds features, encoder and decoder. Tokens "
        "are those of the texts, never padding.",
    ]
    if "sides" in report:
        parts += _trained(report)
    else:
        counts = ", ".join(f"{name} {n / 1e6:.1f} M" for name, n in report["parameters"].items())
        parts.append(f"Random weights, size `{report['random']}`: {counts} parameters.")
    if "length" in report:
        parts += ["## Cost by length, length head on", _random_table(report["length"])]
        parts.append(_crossover_table(report["crossover"]))
    if "candidates" in report:
        parts += ["## Cost by candidates", _random_table(report["candidates"])]
    if "reuse" in report:
        parts += ["## Keys and values of the audio, decoder alone", _reuse_table(report["reuse"])]
    return "\n\n".join(parts) + "\n"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw the seconds of a clip against its length, a line for each side.

    Args:
        report: Holds `length`.
        path: The picture's file; its ending says which format.

    Raises:
        MissingExtra: The extra `report` is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "a picture of the comparison") from error
    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_subplot(
        xlabel="length of the clip (s)",
        ylabel="encoder and decoder (s)",
        yscale="log",
        title=f"{report['random']}, random weights, {report['environment']['line']}",
    )
    axes.title.set_fontsize(8)
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in report["length"]:
        lines.setdefault(row["side"], []).append((row["clip_s"], row["median_s"]["total"]))
    for name, points in lines.items():
        style = "-" if name.startswith("diffusion") else "--"
        axes.plot(*zip(*points, strict=True), style, marker="o", label=name)
    axes.legend(fontsize=7)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    kind = path.suffix.lstrip(".")
    atomic_write(path, lambda place: figure.savefig(place, format=kind, dpi=150))


def _trained(report: Mapping[str, Any]) -> list[str]:
    sets = report["sets"]
    header = ("side", *_STAGES, "RTF", "tokens/s", *(f"{name} WER %" for name in sets))
    rows = [
        (
            *_cells(side),
            side["tokens_per_s"],
            *(_wer(one) for one in side["sets"]),
        )
        for side in report["sides"]
    ]
    ranges = [one["set"] for one in report["sides"][0]["ranges"]]
    by_range = [
        (
            side["side"],
            *(f"{one['seconds']['total']:.3f} s, {_percent(one['wer'])}" for one in side["ranges"]),
        )
        for side in report["sides"]
    ]
    items = [one["items"] for one in report["sides"][0]["ranges"]]
    titles = [f"{name} ({count} clips)" for name, count in zip(ranges, items, strict=True)]
    missing = [f"Not measured: {one}." for one in report["missing"]]
    return [
        f"`{report['model']}`, {report['clips']} clips, {report['audio_s']:.0f} s of audio. "
        "WER: of the corpus with its 95 % interval; in brackets the mean of utterances.",
        table(header, rows),
        "By length: seconds of a pass, WER of the corpus in %.",
        table(("side", *titles), by_range),
        *missing,
    ]


def _random_table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ("side", *_STAGES, "RTF", "clip (s)", "tokens", "tokens/s", "length head", "positions")
    return table(
        header,
        [
            (
                *_cells(row),
                row["clip_s"],
                row["tokens"],
                row["tokens_per_s"],
                {True: "on", False: "off", None: ""}[row["settings"].get("length_head")],
                row.get("positions", ""),
            )
            for row in rows
        ],
    )


def _crossover_table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        (row["side"], "never" if row["from_s"] is None else f"{row['from_s']:g} s") for row in rows
    ]
    return table(("side", "costs less than greedy autoregressive decoding from"), cells)


def _reuse_table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ("positions", "candidates", "steps", "frames", "reused (s)", "recomputed (s)", "times")
    return table(
        (*header, "same text"),
        [
            (
                row["positions"],
                row["num_candidates"],
                row["num_steps"],
                row["frames"],
                *(f"{median(row['seconds'][name]):.3f}" for name in ("reused", "recomputed")),
                f"{median(row['ratios']):.2f}",
                "yes" if row["same"] else "no",
            )
            for row in rows
        ],
    )


def _cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (row["side"], *(f"{row['median_s'][stage]:.3f}" for stage in _STAGES), row["rtf"])


def _wer(row: Mapping[str, Any]) -> str:
    interval = row["wer_interval"] or {}
    ends = (interval.get("low"), interval.get("high"))
    span = f" [{_percent(ends[0])}, {_percent(ends[1])}]"
    return f"{_percent(row['wer'])}{span} ({_percent(row['mean_utterance_wer'])})"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"
