"""Before and after: a base and the same base with an adapter, on recordings neither has seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from speechadapt.adapters import store
from speechadapt.audio.span import Signal
from speechadapt.core.files import atomic_write, atomic_write_json, atomic_write_text, read_json
from speechadapt.data.manifest import Utterance
from speechadapt.data.own import read_own
from speechadapt.decoders.base import Hypothesis
from speechadapt.decoders.catalog import decoder_for
from speechadapt.decoders.ctc.decoder import CtcDecoder
from speechadapt.metrics.bootstrap import Interval, bootstrap_difference
from speechadapt.metrics.report import SetScore, percent, score_set, to_json
from speechadapt.metrics.wer import Pair
from speechadapt.models.build import find_model, load
from speechadapt.models.card import bundled_models
from speechadapt.models.recogniser import Recogniser
from speechadapt.training.adapt.parts import BUNDLED_BASE

Verdict = Literal["helped", "worse", "unclear", "alone"]
Tick = Callable[[int, int], None]


@runtime_checkable
class Reader(Protocol):
    """What transcribes clips; a `Recogniser` does.

    Attributes:
        sample_rate: Hz of the clips.
    """

    sample_rate: int

    def decode_batch(self, waveforms: Sequence[Signal]) -> list[Hypothesis]:
        """Write one hypothesis per clip."""
        ...


def load_reader(base: str, adapter: Path | None = None, language: str | None = None) -> Recogniser:
    """Load a base with or without an adapter, on the accelerator where there is one.

    Args:
        base: The model; empty means `parts.BUNDLED_BASE`.
        adapter: The adapter's folder.
        language: Told to a model of many languages; others know their own.

    Raises:
        CatalogError: The base has no decoder and writes no text.
        CheckpointError: A part of the base or of the adapter is missing or damaged.
    """
    config = read_json(find_model(base or BUNDLED_BASE) / "config.json")
    kind = CtcDecoder if adapter is not None else decoder_for(config)
    options: dict[str, Any] = (
        {"language": language} if language and kind.name == "whisper_ar" else {}
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load(base or BUNDLED_BASE, device=device, adapter=adapter, **options)


def read_texts(
    reader: Reader, rows: Sequence[Utterance], tick: Tick | None = None, batch: int = 8
) -> list[str]:
    """Transcribe rows none of which is longer than the reader's window.

    Args:
        reader: Who reads.
        rows: Rows of known length, audio by absolute path.
        tick: Called with the rows done and their number.
        batch: Rows at a time; they are sorted by length.

    Returns:
        One text per row, in the order of the rows.
    """
    texts = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda place: rows[place].duration or 0.0)
    for start in range(0, len(order), batch):
        places = order[start : start + batch]
        signals = [read_own(rows[place], reader.sample_rate)[0] for place in places]
        for place, found in zip(places, reader.decode_batch(signals), strict=True):
            texts[place] = found.text
        if tick is not None:
            tick(start + len(places), len(order))
    return texts


def score_texts(
    name: str,
    rows: Sequence[Utterance],
    texts: Sequence[str],
    normaliser: str = "verbatim",
    language: str | None = None,
) -> SetScore:
    """Score what was read.

    Args:
        name: Of the score.
        rows: With the reference texts.
        texts: One per row.
        normaliser: As `load_normaliser` takes it.
        language: BCP 47 code of every text; None takes each row's own.
    """
    pairs = [
        Pair(row.id, row.text, text, row.speaker, row.lang)
        for row, text in zip(rows, texts, strict=True)
    ]
    return score_set(name, pairs, normaliser=normaliser, language=language)


@dataclass(frozen=True)
class Comparison:
    """Two scores of the same recordings.

    Args:
        before: The base's; None where it writes no text.
        after: With the adapter.
        change: Headline rate after minus before, both drawn together; None without `before`.
    """

    before: SetScore | None
    after: SetScore
    change: Interval | None

    @property
    def rate(self) -> str:
        """Name of the headline rate, `wer` or `cer`."""
        return self.after.score.headline

    @property
    def verdict(self) -> Verdict:
        """Whether adapting `helped`, made it `worse`, is `unclear`, or stands `alone`."""
        if self.change is None:
            return "alone"
        if self.change.high < 0:
            return "helped"
        return "worse" if self.change.low > 0 else "unclear"

    def sentence(self) -> str:
        """Say plainly whether adapting helped."""
        name, after = self.rate.upper(), _of(self.after, self.rate)
        if self.before is None or self.change is None:
            return (
                f"The base writes no text of its own, so there is no score before; {name} after "
                f"adapting is {percent(after)} %."
            )
        before = _of(self.before, self.rate)
        step = f"{name} {100 * before.estimate:.1f} % before, {100 * after.estimate:.1f} % after"
        low, high = 100 * self.change.low, 100 * self.change.high
        by = f"{100 * self.change.estimate:+.1f} points ({low:+.1f} to {high:+.1f})"
        if self.verdict == "helped":
            return f"Adapting helped: {step}, {by}."
        if self.verdict == "worse":
            return f"Adapting did not help, it did harm: {step}, {by}. Use the base as it is."
        return (
            f"Adapting did not help as far as these {len(self.after.score.items)} recordings can "
            f"tell: {step}, and a change of {by} may be chance."
        )

    def to_json(self) -> dict[str, Any]:
        """Return both scores and the change, as JSON values."""
        return {
            "verdict": self.verdict,
            "before": None if self.before is None else to_json(self.before),
            "after": to_json(self.after),
            "change": None if self.change is None else asdict(self.change),
        }


def compare(before: SetScore | None, after: SetScore) -> Comparison:
    """Compare two scores of the same rows.

    Args:
        before: The base's score; None where it writes no text.
        after: The score with the adapter.
    """
    if before is None:
        return Comparison(None, after, None)
    by_character = after.score.headline == "cer"
    then, now = (
        [item.characters if by_character else item.words for item in one.score.items]
        for one in (before, after)
    )
    change = bootstrap_difference(
        [count.edits for count in now],
        [count.edits for count in then],
        [count.reference for count in now],
        [item.pair.speaker for item in after.score.items],
    )
    return Comparison(before, after, change)


def comparison_table(comparison: Comparison) -> list[list[str]]:
    """Return a table: the rates before and after in per cent, with their intervals."""
    rows = [["", "before", "after"]]
    for name in ("wer", "cer"):
        before = comparison.before
        cells = ["-" if before is None else percent(_of(before, name))]
        rows.append([f"{name.upper()} %", *cells, percent(_of(comparison.after, name))])
    return rows


def scored_on(comparison: Comparison) -> str:
    """Say what the scores were measured on and how the intervals were made."""
    score, after = comparison.after.score, _of(comparison.after, comparison.rate)
    return (
        f"{len(score.items)} held-out recordings, {score.words.reference} words; "
        f"{after.description}; normaliser {', '.join(score.normalisers)}; {score.scorer}"
    )


def _of(scored: SetScore, name: str) -> Interval:
    return scored.cer if name == "cer" else scored.wer


def write_adapter(
    source: Path,
    folder: Path,
    comparison: Comparison,
    training: Mapping[str, Any],
    limits: Sequence[str],
) -> None:
    """Write the best step of a run as the adapter to keep: weights, what they belong to, a card.

    Args:
        source: The `best` folder of a run.
        folder: Is made; files of an earlier call are replaced.
        comparison: Its scores.
        training: What it was trained on and how, as JSON values.
        limits: What the score is worth, one sentence each.
    """
    details = read_json(source / store.CONFIG)
    details["training"] = {**(details.get("training") or {}), **training}
    dev = details.get("scores") or {}
    details["scores"] = {"held out": comparison.to_json(), "chosen by": dev}
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / store.WEIGHTS, lambda path: _copy(source / store.WEIGHTS, path))
    atomic_write_text(folder / "README.md", _card(source, folder.name, comparison, details, limits))
    atomic_write_json(folder / store.CONFIG, details)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _card(
    source: Path,
    name: str,
    comparison: Comparison,
    details: Mapping[str, Any],
    limits: Sequence[str],
) -> str:
    """Return the card of the run's folder under its own name, with what is known by now."""
    own = (source / "README.md").read_text(encoding="utf-8")
    front, _, body = own.partition("\n# ")
    if own.startswith("# "):
        front, body = "", own.removeprefix("# ")
    _, _, body = body.partition("\n")
    body = body.partition("\n## Training")[0].strip()
    header, *rows = comparison_table(comparison)
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * 3, *rows)]
    known = details["base"]["name"] in bundled_models() or "/" in str(details["base"]["name"])
    model = "" if known else " --model BASE"
    training = [f"- {key}: {value}" for key, value in details["training"].items()]
    parts = [
        f"{front}\n# {name}" if front else f"# {name}",
        body,
        "## Use",
        f"    speechadapt transcribe RECORDINGS{model} --adapter {name} -o OUT",
        "## Scores",
        comparison.sentence(),
        "\n".join(lines),
        f"On {scored_on(comparison)}.",
        "## Training",
        "\n".join(training),
    ]
    if limits:
        parts += ["## Limits", "\n".join(f"- {limit}" for limit in limits)]
    return "\n\n".join(parts) + "\n"
