"""Spectrograms of restored files before, after and clean: the worst and the median one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechadapt.audio.io import decode_audio, probe
from speechadapt.audio.span import Signal
from speechadapt.core.errors import MissingExtra
from speechadapt.metrics.quality import FFT, HOP
from speechadapt.metrics.quality_report import Scored

_RANGE_DB = 80.0
_LONGEST_S = 12.0
_INCHES = (9.0, 7.5)


def chosen(items: Sequence[Scored], score: str = "lsd_db") -> dict[str, Scored]:
    """Return the file with the highest score and the one in the middle.

    Args:
        items: Scored files; those without the score do not count.
        score: Its name; more is worse.

    Returns:
        `worst` and `median`; empty where no file has the score.
    """
    found = [(item.scores.get(score), item) for item in items]
    known = [(value, item) for value, item in found if value is not None]
    if not known:
        return {}
    ranked = [item for _, item in sorted(known, key=lambda pair: (pair[0], pair[1].pair.id))]
    return {"worst": ranked[-1], "median": ranked[(len(ranked) - 1) // 2]}


def draw(items: Sequence[Scored], folder: Path) -> list[Path]:
    """Draw the worst and the median file by log-spectral distance.

    Args:
        items: Scored files.
        folder: Receives `worst.png` and `median.png`; is made.

    Returns:
        The pictures.

    Raises:
        MissingExtra: matplotlib is not installed.
        AudioError: A file cannot be read any more.
    """
    pictures = []
    for name, item in chosen(items).items():
        sides = {
            "before": item.pair.before,
            "after": item.pair.degraded,
            "clean": item.pair.reference,
        }
        figure = _figure()
        rate = probe(item.pair.reference).sample_rate
        shown = {side: path for side, path in sides.items() if path is not None}
        for place, (side, path) in enumerate(shown.items(), 1):
            axes = figure.add_subplot(len(shown), 1, place)
            signal = decode_audio(path, rate).waveform[: round(_LONGEST_S * rate)]
            _draw_one(axes, signal, rate, f"{item.pair.id}: {side}{_value(item, side)}")
        folder.mkdir(parents=True, exist_ok=True)
        pictures.append(folder / f"{name}.png")
        figure.savefig(pictures[-1], dpi=100)
    return pictures


def levels_db(signal: Signal) -> NDArray[np.float64]:
    """Return levels by frequency and time, in decibels below the highest, at most 80.

    Args:
        signal: Samples.
    """
    padded = np.pad(signal.astype(np.float64), (0, max(0, FFT - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(FFT))).T ** 2
    highest = float(power.max())
    if highest == 0.0:
        return np.full(power.shape, -_RANGE_DB)
    return np.asarray(10 * np.log10(np.maximum(power / highest, 10 ** (-_RANGE_DB / 10))))


def _value(item: Scored, side: str) -> str:
    scores = {"before": item.before, "after": item.scores}.get(side, {})
    value = scores.get("lsd_db")
    return "" if value is None else f", LSD {value:.1f} dB"


def _figure() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("report", "A picture") from error
    return Figure(figsize=_INCHES, layout="constrained")


def _draw_one(axes: Any, signal: Signal, sample_rate: int, title: str) -> None:
    extent = (0.0, len(signal) / sample_rate, 0.0, sample_rate / 2000)
    axes.imshow(
        levels_db(signal), origin="lower", aspect="auto", extent=extent, vmin=-_RANGE_DB, vmax=0.0
    )
    axes.set_title(title, fontsize=9)
    axes.set_ylabel("kHz")
    axes.set_xlabel("s")
