"""Looking over one's own recordings and transcripts before a model is adapted to them.

A row that would teach a wrong thing is left out; what is only worth knowing is noted. Nothing is
left out silently: every finding names its row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np

from speechadapt.audio.io import decode_audio, probe
from speechadapt.core.errors import AudioError, MissingExtra
from speechadapt.core.files import hash_bytes
from speechadapt.core.limits import Positive, PositiveInterval, Probability, Range
from speechadapt.data.manifest import Utterance

Spell = Callable[[Utterance], str]
Tick = Callable[[int, int], None]

LEFT_OUT = MappingProxyType(
    {
        "no_text": "without a transcript",
        "empty_text": "transcript without a letter",
        "unreadable": "recording cannot be read",
        "cut_short": "recording ends before it should",
        "too_long": "longer than the model reads at once",
        "silent": "silence",
        "too_many_letters": "more letters than fit into the time",
        "repeated": "same recording and text as another row",
        "contradicted": "same recording as another row, with another text",
    }
)
NOTED = MappingProxyType(
    {
        "clipped": "overdriven (clipped)",
        "faint": "very faint",
        "few_letters": "few letters for their length: is all of it transcribed?",
        "narrow": "sampled below the model's rate",
    }
)
_FAINT_ABOVE_SILENCE_DB = 15.0
_FULL_SCALE = 0.999
_LONG_ENOUGH_S = 3.0


@dataclass(frozen=True)
class CheckConfig:
    """From where on a recording or a transcript is doubtful.

    Args:
        max_s: Longest recording in seconds; None takes what the model reads at once.
        letters_per_s: Fewest (noted) and most (left out) letters a second.
        silent_db: Level under which a recording counts as silence, in decibels of full scale.
        clipped: Share of samples at full scale from which a recording counts as overdriven.
    """

    max_s: Positive | None = None
    letters_per_s: PositiveInterval = (1.0, 30.0)
    silent_db: Annotated[float, Range(-120.0, 0.0)] = -60.0
    clipped: Probability = 0.001


@dataclass(frozen=True)
class Needs:
    """What a model can take.

    Args:
        sample_rate: Its rate in Hz.
        frame_rate: Frames it makes in a second, each of which can stand for one letter.
        longest_s: Longest recording it reads at once.
    """

    sample_rate: int
    frame_rate: float
    longest_s: float


@dataclass(frozen=True)
class Finding:
    """Something about one row.

    Args:
        kind: A key of `LEFT_OUT` or of `NOTED`.
        id: The row.
        audio: Its recording.
        detail: What was found.
    """

    kind: str
    id: str
    audio: str
    detail: str

    @property
    def left_out(self) -> bool:
        """Whether the row is left out for it."""
        return self.kind in LEFT_OUT

    def to_json(self) -> dict[str, str]:
        """Return it as JSON values."""
        return {
            "id": self.id,
            "audio_filepath": self.audio,
            "reason": self.kind,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Checked:
    """Rows that can be used, and what was found.

    Args:
        rows: Usable rows in their order, each with its length; `extra` has the hash of its samples
            as `audio_sha256`.
        findings: In the order of the rows.
        total: Rows looked at.
    """

    rows: tuple[Utterance, ...]
    findings: tuple[Finding, ...]
    total: int

    def by_kind(self, kinds: Mapping[str, str]) -> dict[str, list[Finding]]:
        """Return the findings of some kinds, kinds without one left out."""
        found: dict[str, list[Finding]] = {kind: [] for kind in kinds}
        for finding in self.findings:
            if finding.kind in kinds:
                found[finding.kind].append(finding)
        return {kind: members for kind, members in found.items() if members}


def check_rows(
    rows: Sequence[Utterance],
    needs: Needs,
    config: CheckConfig,
    spell: Spell,
    tick: Tick | None = None,
) -> Checked:
    """Decode every recording once and look over it and its transcript.

    Args:
        rows: Rows with distinct ids and audio by a path that can be opened.
        needs: What the model can take.
        config: What is doubtful.
        spell: Gives the text as it is trained on.
        tick: Called with the rows done and their number.
    """
    good: list[Utterance] = []
    findings: list[Finding] = []
    for number, row in enumerate(rows, 1):
        found, heard = _look_over(row, needs, config, spell)
        findings += found
        if heard is not None:
            extra = {**row.extra, "audio_sha256": heard.digest}
            good.append(replace(row, duration=heard.seconds, extra=extra))
        if tick is not None:
            tick(number, len(rows))
    twice = _repeats(good, spell)
    findings += twice
    gone = {finding.id for finding in twice}
    order = {row.id: place for place, row in enumerate(rows)}
    return Checked(
        rows=tuple(row for row in good if row.id not in gone),
        findings=tuple(sorted(findings, key=lambda finding: order[finding.id])),
        total=len(rows),
    )


@dataclass(frozen=True)
class _Heard:
    seconds: float
    file_rate: int
    level_db: float
    clipped: float
    digest: str
    note: str | None


def _look_over(
    row: Utterance, needs: Needs, config: CheckConfig, spell: Spell
) -> tuple[list[Finding], _Heard | None]:
    """Return what is found about a row, and its recording where the row can be used."""

    def finding(kind: str, detail: str) -> Finding:
        return Finding(kind, row.id, row.audio_filepath, detail)

    if row.text is None or not row.text.strip():
        return [finding("no_text", "no text is given")], None
    text = spell(row)
    if not text:
        return [finding("empty_text", f"{row.text!r} has no letter or digit")], None
    most_s = needs.longest_s if config.max_s is None else min(config.max_s, needs.longest_s)
    try:
        claimed = _claimed_s(row)
        if claimed is not None and claimed > 2 * most_s:
            return [finding("too_long", f"{claimed:.1f} s; up to {most_s:g} s can be used")], None
        heard = _listen(row, needs.sample_rate)
    except (AudioError, MissingExtra) as error:
        return [finding("unreadable", str(error))], None
    reason = _reason(text, heard, most_s, needs, config)
    if reason is not None:
        return [finding(*reason)], None
    return [finding(*note) for note in _notes(text, heard, needs, config)], heard


def _claimed_s(row: Utterance) -> float | None:
    if row.duration:
        return row.duration
    found = probe(Path(row.audio_filepath)).estimate_s
    return None if found is None else found - row.offset


def _listen(row: Utterance, sample_rate: int) -> _Heard:
    path = Path(row.audio_filepath)
    decoded = decode_audio(path, sample_rate, offset_s=row.offset, duration_s=row.duration or None)
    samples = decoded.waveform
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    whole = np.clip(np.round(samples * 32768.0), -32768, 32767).astype("<i2")
    return _Heard(
        seconds=round(len(samples) / sample_rate, 6),
        file_rate=probe(path).sample_rate,
        level_db=10 * float(np.log10(power + 1e-20)),
        clipped=float(np.mean(np.abs(samples) >= _FULL_SCALE)),
        digest=hash_bytes(whole.tobytes()),
        note=decoded.note if decoded.status == "partial" else None,
    )


def _reason(
    text: str, heard: _Heard, most_s: float, needs: Needs, config: CheckConfig
) -> tuple[str, str] | None:
    """Say why a row has to be left out, None where it can be used."""
    letters = _letters(text)
    if heard.note is not None:
        return "cut_short", heard.note
    if heard.seconds > most_s:
        return "too_long", f"{heard.seconds:.1f} s; up to {most_s:g} s can be used"
    if heard.level_db < config.silent_db:
        return "silent", f"its level is {heard.level_db:.0f} dB of full scale"
    frames = int(needs.frame_rate * heard.seconds)
    if letters > config.letters_per_s[1] * heard.seconds:
        return "too_many_letters", f"{letters} letters in {heard.seconds:.2f} s"
    if letters > frames:
        return "too_many_letters", f"{letters} letters, for which the model has {frames} frames"
    return None


def _notes(text: str, heard: _Heard, needs: Needs, config: CheckConfig) -> list[tuple[str, str]]:
    letters, seconds = _letters(text), heard.seconds
    found: list[tuple[str, str]] = []
    if heard.clipped > config.clipped:
        found.append(("clipped", f"{100 * heard.clipped:.1f} % of its samples at full scale"))
    if heard.level_db < config.silent_db + _FAINT_ABOVE_SILENCE_DB:
        found.append(("faint", f"its level is {heard.level_db:.0f} dB of full scale"))
    if seconds >= _LONG_ENOUGH_S and letters < config.letters_per_s[0] * seconds:
        found.append(("few_letters", f"{letters} letters in {seconds:.1f} s"))
    if heard.file_rate < needs.sample_rate:
        found.append(("narrow", f"{heard.file_rate} Hz; the model reads {needs.sample_rate} Hz"))
    return found


def _letters(text: str) -> int:
    return sum(not letter.isspace() for letter in text)


def _repeats(rows: Sequence[Utterance], spell: Spell) -> list[Finding]:
    """Find rows whose samples another row has too."""
    groups: defaultdict[str, list[tuple[Utterance, str]]] = defaultdict(list)
    for row in rows:
        groups[str(row.extra["audio_sha256"])].append((row, spell(row)))
    found: list[Finding] = []
    for members in groups.values():
        if len({text for _, text in members}) > 1:
            texts = ", ".join(repr(text) for text in sorted({text for _, text in members})[:3])
            found += [_finding("contradicted", row, f"the texts are {texts}") for row, _ in members]
        else:
            first = members[0][0]
            found += [_finding("repeated", row, f"as '{first.id}'") for row, _ in members[1:]]
    return found


def _finding(kind: str, row: Utterance, detail: str) -> Finding:
    return Finding(kind, row.id, row.audio_filepath, detail)


def manifest_rows(parts: Mapping[str, Sequence[Utterance]]) -> list[dict[str, Any]]:
    """Return the rows of a manifest that `data.own` reads, sorted by id.

    Args:
        parts: Rows by split.
    """
    rows = [
        replace(row, extra={**row.extra, "split": split}).to_row()
        for split, members in parts.items()
        for row in members
    ]
    return sorted(rows, key=lambda row: str(row["id"]))
