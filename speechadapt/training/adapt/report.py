"""What an adaptation reports: scores with intervals, parameters, memory and time."""

from __future__ import annotations

import gc
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from speechadapt.audio.augment import Signal
from speechadapt.core.memory import resident_bytes
from speechadapt.data.manifest import Utterance
from speechadapt.metrics.bootstrap import bootstrap_ratio
from speechadapt.metrics.wer import CorpusScore, EditCounts, Pair, score_pairs

Reader = Callable[[str, list[Signal]], list[str]]


class DevSets:
    """Held-out recordings and what was last read in them.

    Args:
        sets: Recordings with what is known about them, by corpus.
        normaliser: Rules by which texts are compared.
        language: BCP 47 code of every text; None takes each utterance's own.
        rows: Recordings in a batch; they are sorted by length.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[tuple[Signal, Utterance]]],
        normaliser: str,
        language: str | None,
        rows: int = 32,
    ) -> None:
        self.sets = {
            name: sorted(items, key=lambda item: (len(item[0]), item[1].id))
            for name, items in sets.items()
        }
        self.normaliser = normaliser
        self.language = language
        self.rows = rows
        self.scored: dict[str, CorpusScore] = {}

    def score(self, read: Reader) -> dict[str, float]:
        """Score a reader.

        Args:
            read: Transcribes a batch of signals; its name comes first and is always the same for
                the same batch.

        Returns:
            `wer` and `cer`, the means over the corpora, then each corpus's headline rate.
        """
        self.scored = {
            name: self._score(name, items, read) for name, items in self.sets.items() if items
        }
        found = self.scored.values()
        means = {"wer": _mean([one.wer for one in found]), "cer": _mean([one.cer for one in found])}
        return means | {name: _headline(one) for name, one in self.scored.items()}

    def details(self) -> dict[str, Any]:
        """Return the last scores with their intervals, as JSON values."""
        return {name: _details(score) for name, score in self.scored.items()}

    def _score(
        self, name: str, items: Sequence[tuple[Signal, Utterance]], read: Reader
    ) -> CorpusScore:
        texts: list[str] = []
        for start in range(0, len(items), self.rows):
            signals = [signal for signal, _ in items[start : start + self.rows]]
            texts += read(f"{name}-{start}", signals)
        pairs = [
            Pair(item.id, item.text, text, item.speaker, item.lang)
            for (_, item), text in zip(items, texts, strict=True)
        ]
        return score_pairs(pairs, self.normaliser, self.language)


def _headline(score: CorpusScore) -> float:
    return score.cer if score.headline == "cer" else score.wer


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _details(score: CorpusScore) -> dict[str, Any]:
    found: dict[str, Any] = {"headline": score.headline, "items": len(score.items)}
    speakers = [item.pair.speaker for item in score.items]
    counts: dict[str, list[EditCounts]] = {
        "wer": [item.words for item in score.items],
        "cer": [item.characters for item in score.items],
    }
    for name, rows in counts.items():
        edits, units = [row.edits for row in rows], [row.reference for row in rows]
        interval = bootstrap_ratio(edits, units, speakers)
        found[name] = interval.estimate
        found[f"{name}_interval"] = [interval.low, interval.high]
        found["interval"] = interval.description
    return found | {"normaliser": ", ".join(score.normalisers), "scorer": score.scorer}


class Meter:
    """Measures the steps of a sitting and the memory they take."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._before: int | None = None
        self._resets = False

    def start(self) -> None:
        """Take the memory in use now for the ground that a peak rises from; once."""
        if self._before is not None:
            return
        gc.collect()  # garbage freed later would hide as much of the peak
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._resets = _forget_peak()
        self._before = resident_bytes("VmRSS") or 0

    def step(self, seconds: float) -> None:
        """Count a step.

        Args:
            seconds: What it took.
        """
        self.seconds.append(seconds)

    def facts(self) -> dict[str, Any]:
        """Return what was measured, as JSON values; times in seconds, sizes in bytes."""
        times = self.seconds
        facts: dict[str, Any] = {
            "steps_measured": len(times),
            "seconds_per_step": statistics.median(times) if times else None,
            "peak_memory": None,
            "peak_memory_of": "not measured on this system",
        }
        if torch.cuda.is_available():
            facts["peak_memory"] = torch.cuda.max_memory_allocated()
            facts["peak_memory_of"] = "tensors on the GPU, weights included"
        elif self._resets and self._before:
            facts["peak_memory"] = max(0, (resident_bytes("VmHWM") or 0) - self._before)
            facts["peak_memory_of"] = "resident memory above the start of training"
        return facts


def _forget_peak() -> bool:
    """Make the kernel count the peak of resident memory from now on; say whether it does."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        with Path("/proc/self/clear_refs").open("w") as handle:
            handle.write("5")
    except OSError:
        return False
    return True


def parameter_facts(trained: Mapping[str, int], encoder: int) -> dict[str, Any]:
    """Return how much is trained, as JSON values.

    Args:
        trained: Trained parameters by part; `head` is one of them.
        encoder: Parameters of the encoder.

    Returns:
        The counts, and the share of the encoder's parameters that everything but the head makes.
    """
    total = sum(trained.values())
    without_head = total - trained.get("head", 0)
    return {
        "trained": total,
        "trained_by_part": dict(trained),
        "encoder": encoder,
        "share": without_head / encoder,
        "share_with_head": total / encoder,
    }


def report_lines(report: Mapping[str, Any]) -> str:
    """Return a report as lines for people.

    Args:
        report: As the objective wrote it.
    """
    counts = report["parameters"]
    lines = [
        f"{report['what']}: {counts['trained']:,} parameters trained, "
        f"{100 * counts['share']:.2f} % of the encoder's {counts['encoder']:,} without the head"
    ]
    if report["seconds_per_step"] is not None:
        memory = report["peak_memory"]
        shown = "" if memory is None else f", peak {memory / 2**20:.0f} MiB of "
        lines.append(
            f"{report['seconds_per_step']:.3f} s a step (median of {report['steps_measured']})"
            + (f"{shown}{report['peak_memory_of']}" if shown else "")
        )
    if report["prefix"] is not None:
        prefix = report["prefix"]
        lines.append(
            f"frozen prefix of {prefix['layers']} layers: {prefix['entries']} inputs kept, "
            f"{prefix['bytes'] / 2**20:.1f} MiB, computed in {prefix['seconds']:.1f} s"
        )
    for chosen, sets in report["scores"].items():
        for name, score in sets.items():
            lines.append(f"{chosen}: {name} {_shown(score)}")
    return "\n".join(lines)


def _shown(score: Mapping[str, Any]) -> str:
    parts = []
    for name in ("wer", "cer"):
        low, high = score[f"{name}_interval"]
        value = score[name]
        parts.append(f"{name.upper()} {100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})")
    return f"{', '.join(parts)}; {score['items']} items, {score['interval']}"
