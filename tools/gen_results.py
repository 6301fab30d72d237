"""Write the README's result tables from the measurements in docs/results.

    python tools/gen_results.py            write the tables between the README's markers
    python tools/gen_results.py --check    write nothing; fail where the README or a file is stale

Word error rates come from files of `eval_pack.py --output`, everything else from files of the
`bench` tools. Bars stand in this file and in `bench_facts.py`; whether one is met is computed from
the figure. What has no file is shown as not yet measured. A file is refused if it is of a smoke
run, if its command names a place of one machine, or if it was measured with other weights than the
bundled ones.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench_claims import CLAIMS, number
from bench_facts import MISSING, verdict

from speechadapt.core.errors import DataError, SpeechadaptError
from speechadapt.core.files import atomic_write_text, hash_file
from speechadapt.models.card import bundled_models, table

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
NOTE = "<!-- Written by tools/gen_results.py from the files of docs/results; do not edit. -->"

SETS = {
    "fsdd/test_speaker": "FSDD digits, unseen speaker",
    "fsdd/test": "FSDD digits, other takes of the training speakers",
    "connected": "connected digits, the same unseen speaker",
    "orders": "coffee orders",
    "speech_commands/test": "Speech Commands",
    "wake/test": "wake words",
    "librispeech/test": "LibriSpeech sentences",
    "vctk/test": "VCTK sentences",
}


@dataclass(frozen=True)
class Recogniser:
    """A row of every test set.

    Args:
        label: As the table says it.
        model: The bundled model.
        search: How it decodes, as `search_of` says it.
        file: The file of `docs/results` with its scores.
        bars: The highest word error rate allowed, by set.
    """

    label: str
    model: str
    search: str
    file: str
    bars: Mapping[str, float] = field(default_factory=dict)


RECOGNISERS = (
    Recogniser(
        "mini-usm, greedy",
        "mini-usm",
        "greedy",
        "mini-usm.json",
        {
            "fsdd/test_speaker": 0.08,
            "fsdd/test": 0.03,
            "connected": 0.12,
            "orders": 0.25,
            "speech_commands/test": 0.12,
            "wake/test": 0.03,
        },
    ),
    Recogniser(
        "mini-usm, beam and an n-gram of the training sentences",
        "mini-usm",
        "beam and n-gram",
        "mini-usm-beam.json",
        {"orders": 0.15},
    ),
    Recogniser(
        "mini-whisper, padded",
        "mini-whisper",
        "padded",
        "mini-whisper.json",
        {
            "fsdd/test_speaker": 0.10,
            "connected": 0.14,
            "orders": 0.20,
            "speech_commands/test": 0.15,
            "wake/test": 0.04,
        },
    ),
    Recogniser(
        "mini-diffusion, 15 candidates, 4 steps, the surest",
        "mini-diffusion",
        "pdd 15 4 confidence",
        "mini-diffusion.json",
        {"fsdd/test_speaker": 0.12, "orders": 0.22, "wake/test": 0.08},
    ),
)
# Linear probes of frozen encoders by their files: the bundled model that was probed.
PROBES = {"mini-ast.json": "mini-ast"}
# Published with the data pack; nothing in this repository measured it.
POCKETSPHINX = {"fsdd/test_speaker": 0.88, "connected": 0.99, "orders": 0.37, "wake/test": 0.91}
POCKETSPHINX_RTF = "0.16 to 0.58"
POCKETSPHINX_LABEL = "PocketSphinx, its own model (a)"
POCKETSPHINX_NOTE = (
    "(a) PocketSphinx with its own model on clips of these kinds (digits, connected digits, "
    "orders, wake words): measured earlier off the shelf, not re-run here."
)


class Results:
    """The files of a folder of measurements.

    Args:
        folder: Holds one JSON file per measurement.
        models: The bundled models' folders by name, whose weights a score must be of.
    """

    def __init__(self, folder: Path, models: Mapping[str, Path]) -> None:
        self.folder = folder
        self.models = models

    @cached_property
    def files(self) -> dict[str, dict[str, Any]]:
        """Every file's content by name.

        Raises:
            DataError: Files are unfit to be shown; all problems are named at once.
        """
        paths = sorted(self.folder.glob("*.json"))
        found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}
        known = {one.file for one in RECOGNISERS} | {claim.file for claim in CLAIMS.values()}
        known |= set(PROBES)
        problems = [
            f"docs/results/{name} {problem}"
            for name, content in found.items()
            for problem in self._problems(name, content, known)
        ]
        if problems:
            raise DataError("\n".join(problems))
        return found

    def _problems(self, name: str, content: Mapping[str, Any], known: set[str]) -> Iterator[str]:
        if name not in known:
            yield f"is shown nowhere; known are {', '.join(sorted(known))}."
        if content.get("quick"):
            yield "is of a smoke run; measure without --quick."
        missing = [key for key in ("date", "command") if not content.get(key)]
        if missing:
            yield f"lacks {' and '.join(missing)}."
        places = [word for word in shlex.split(str(content.get("command", ""))) if is_place(word)]
        if places:
            yield f"names {', '.join(places)} in its command; such a place is of one machine."
        if name in PROBES:
            yield from self._weight_problems(PROBES[name], content)
        for recogniser in RECOGNISERS:
            if recogniser.file == name:
                yield from self._score_problems(recogniser, content)

    def _score_problems(self, recogniser: Recogniser, content: Mapping[str, Any]) -> Iterator[str]:
        search = search_of(content["fingerprint"]["decoder"])
        if search != recogniser.search:
            yield f"was decoded as '{search}', not '{recogniser.search}'."
        yield from self._weight_problems(recogniser.model, content)
        labels = {label for one in content["sets"] for label in one["normalisers"]}
        others = sorted(label for label in labels if not label.startswith("verbatim "))
        if others:
            yield f"was scored with the normaliser {', '.join(others)}, not verbatim."

    def _weight_problems(self, model: str, content: Mapping[str, Any]) -> Iterator[str]:
        folder = self.models.get(model)
        if folder is None:
            yield f"holds scores of {model}, which is not bundled."
        elif hash_file(folder / "model.safetensors") != content.get("weights_sha256"):
            yield f"was measured with other weights than those bundled as {model}."


def search_of(decoder: Mapping[str, Any]) -> str:
    """Say how a decoder searched, from the settings in a fingerprint."""
    if decoder["name"] == "whisper_ar":
        return "padded" if decoder["padding"] == "full" else "native length"
    if decoder["name"] == "masked_diffusion":
        names = ("strategy", "num_candidates", "num_steps", "select")
        return " ".join(str(decoder[name]) for name in names)
    if decoder["lm"]:
        return "beam and n-gram"
    return "greedy" if decoder["beam_size"] in (None, 1) and not decoder["word_list"] else "beam"


def is_place(word: str) -> bool:
    """Say whether a word of a command is an absolute path, or one that leaves the repository."""
    value = word.rpartition("=")[2]
    return value.startswith(("/", "~", "../"))


def word_errors(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of word error rates."""
    for name, title in SETS.items():
        label = title
        for recogniser in RECOGNISERS:
            row = word_error_row(results, recogniser, name)
            if row is not None:
                yield (label, *row)
                label = ""
        if name in POCKETSPHINX:
            yield (label, POCKETSPHINX_LABEL, f"{100 * POCKETSPHINX[name]:.0f}", "-", "-", "")


def word_error_row(results: Results, recogniser: Recogniser, name: str) -> tuple[str, ...] | None:
    """Return recogniser, rate, bar, verdict and notes; None where there is nothing to say."""
    bar = recogniser.bars.get(name)
    shown = "-" if bar is None else f"<= {number(100 * bar)}"
    sets = results.files.get(recogniser.file, {}).get("sets", ())
    scored = next((one for one in sets if one["set"] == name), None)
    if scored is None or scored["wer"] is None:
        return None if bar is None else (recogniser.label, MISSING, shown, "-", "")
    met = "-" if bar is None else "met" if scored["wer"] <= bar else "missed"
    interval = scored["wer_interval"]
    rate = " ".join(
        (percent(scored["wer"]), f"[{percent(interval['low'])}, {percent(interval['high'])}]")
    )
    return recogniser.label, rate, shown, met, set_notes(scored)


def set_notes(scored: Mapping[str, Any]) -> str:
    """Say how many clips and speakers a set has, and what of it occurs in training."""
    items, speakers, heard = scored["items"], scored["speakers"], scored["speakers_in_training"]
    voices = "one speaker" if speakers == 1 else f"{speakers} speakers"
    if heard:
        voices += " (in training)" if heard == speakers else f" ({heard} of them in training)"
    elif speakers == 1:
        voices = "one unseen speaker"
    repeated = scored["texts_in_training"]
    texts = "all" if repeated == items else "none" if repeated == 0 else f"{repeated}"
    return f"{items} clips, {voices}; {texts} of the texts in training"


def probes(results: Results) -> Iterator[str]:
    """Yield a sentence per linear probe of a frozen encoder."""
    for file, model in PROBES.items():
        for one in results.files.get(file, {}).get("sets", ()):
            ends = one["accuracy_interval"]
            yield (
                f"Frozen `{model}`, {one['set']}: accuracy {percent(one['accuracy'])} % "
                f"[{percent(ends['low'])}, {percent(ends['high'])}], {one['items']} clips; "
                f"{one['note']}."
            )


def speeds(results: Results) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of speed, memory and robustness."""
    for name, claim in CLAIMS.items():
        found = results.files.get(claim.file, {}).get("figures", ())
        one = next((figure for figure in found if figure["claim"] == name), None)
        if one is None:
            yield claim.label, MISSING, claim.bar_text, "-"
            continue
        value, low, high = (number(one[key]) for key in ("value", "low", "high"))
        spread = "" if low == high else f" [{low}, {high}]"
        yield (
            claim.label,
            f"{value}{claim.unit}{spread}",
            claim.bar_text,
            verdict(name, one["value"]),
        )
    yield f"RTF of {POCKETSPHINX_LABEL}", POCKETSPHINX_RTF, "-", "-"


def sources(results: Results) -> Iterator[str]:
    """Yield a line per file: its date, what it ran on, and the command that repeats it."""
    for name, content in results.files.items():
        device = content.get("environment") or describe_device(content)
        source = content.get("details", {}).get("source")
        facts = f"{content['date']}, {device}" + (f"; {source}" if source else "")
        yield f"- `docs/results/{name}`: {facts}; `{content['command']}`"


def describe_device(content: Mapping[str, Any]) -> str:
    """Say what a benchmark ran on, in one line."""
    parts = [content.get("device"), content.get("processor"), content.get("dtype")]
    threads, batch, torch = (content.get(key) for key in ("threads", "batch", "torch"))
    parts += [f"{threads} threads" if threads else None, f"batch {batch}" if batch else None]
    parts += [f"torch {torch}" if torch else None]
    return ", ".join(str(part) for part in parts if part)


def curves(folder: Path, base: Path) -> Iterator[str]:
    """Yield a link to every learning curve: pictures that no page beside them shows."""
    shown = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
    for path in sorted(folder.glob("*.png")):
        if f"({path.name})" not in shown:
            yield f"[{path.stem}]({path.relative_to(base).as_posix()})"


def pages(folder: Path, base: Path) -> Iterator[str]:
    """Yield a link to the page of every comparison of `grid.py`, which has lines beside it."""
    for path in sorted(folder.glob("*.md")):
        if path.with_suffix(".jsonl").exists():
            yield f"[{path.stem}]({path.relative_to(base).as_posix()})"


def percent(rate: float) -> str:
    """Write a fraction in per cent with one digit."""
    return f"{100 * rate:.1f}"


def render(results: Results, base: Path = ROOT) -> str:
    """Return the text between the markers."""
    parts = [
        NOTE,
        "Word error rate in per cent with 95 % bootstrap intervals, drawn by speaker where a set "
        "has several; of a set with one speaker the interval says nothing about other speakers. "
        "Normaliser `verbatim`, scorer jiwer, greedy search where nothing else is said.",
        table(("test set", "recogniser", "WER, %", "bar", "", "what it is"), word_errors(results)),
        POCKETSPHINX_NOTE,
        *probes(results),
        "Speed, memory and robustness; in brackets the range over repeats, made as the file says.",
        table(("what", "measured", "bar", ""), speeds(results)),
    ]
    if measured := list(sources(results)):
        parts += ["Measured by:", "\n".join(measured)]
    if links := list(curves(results.folder, base)):
        parts += [f"Learning curves: {', '.join(links)}."]
    if links := list(pages(results.folder, base)):
        parts += [f"Comparisons of many arms, losers shown: {', '.join(links)}."]
    return "\n\n".join(parts)


def replaced(text: str, content: str) -> str:
    """Return a page with the text between its markers replaced.

    Raises:
        DataError: The page lacks a marker, or has one twice.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(f"README.md must hold {BEGIN} and then {END}, once each.")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{content}\n{END}{rest.partition(END)[2]}"


def main(words: Iterable[str] | None = None) -> int:
    given = list(sys.argv[1:] if words is None else words)
    page = ROOT / "README.md"
    try:
        text = page.read_text(encoding="utf-8")
        wanted = replaced(text, render(Results(ROOT / "docs" / "results", bundled_models())))
    except SpeechadaptError as error:
        print(f"gen_results: {error}", file=sys.stderr)
        return 1
    if text == wanted:
        return 0
    if "--check" in given:
        print("the results in README.md are stale: run `make docs`", file=sys.stderr)
        return 1
    atomic_write_text(page, wanted)
    print("wrote README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
