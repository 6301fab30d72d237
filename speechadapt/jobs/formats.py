"""Transcripts as txt, srt, vtt, tsv and json, by Whisper's conventions.

Everything here is a pure function of a transcript. Times are rounded to 0.02 s, so that the last
bits of an arithmetic do not show. Segments without text (silence, kept for its flags) appear in the
json alone.

Source: https://github.com/openai/whisper (the formats' conventions).
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from speechadapt.core.errors import ConfigError, near_misses

if TYPE_CHECKING:
    from speechadapt.models.transcript import Segment, Transcript

_STEPS_PER_S = 50
_STEP_MS = 20
_LONG_PAUSE_S = 3.0


@dataclass(frozen=True)
class SubtitleOptions:
    """How srt and vtt break lines; all but the first need word times to split a segment.

    Args:
        max_line_width: Most characters a line; None means one line a segment.
        max_line_count: Most lines a cue; None means as many as a segment takes.
        max_words_per_line: Most words a line; None means any number.
        highlight_words: One cue a word, underlined while it is spoken.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    max_words_per_line: int | None = None
    highlight_words: bool = False

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, got {value!r}.")


@dataclass(frozen=True)
class _Cue:
    start: float
    end: float
    text: str


@dataclass(frozen=True)
class _Piece:
    """A word with the space before it as the text has it."""

    text: str
    start: float
    end: float
    opens_segment: bool


def render(name: str, transcript: Transcript, options: SubtitleOptions | None = None) -> str:
    """Write a transcript in one format.

    Args:
        name: One of `FORMATS`.
        transcript: What was said.
        options: How subtitles break lines.

    Returns:
        The whole content of the file.

    Raises:
        ConfigError: There is no such format.
    """
    if name not in FORMATS:
        raise ConfigError(f"there is no output format {name!r}.{near_misses(name, FORMATS)}")
    return FORMATS[name](transcript, options or SubtitleOptions())


def parse_formats(text: str) -> tuple[str, ...]:
    """Read a list of formats such as `txt,json`; `all` stands for every one.

    Raises:
        ConfigError: A name is unknown, or there is none.
    """
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in FORMATS and name != "all":
            known = (*FORMATS, "all")
            raise ConfigError(f"there is no output format {name!r}.{near_misses(name, known)}")
    if not names:
        raise ConfigError(f"no output format in {text!r}.{near_misses('', FORMATS)}")
    return tuple(FORMATS) if "all" in names else tuple(dict.fromkeys(names))


def write_txt(transcript: Transcript, options: SubtitleOptions) -> str:
    """Write one segment a line."""
    return "".join(f"{_one_line(segment.text)}\n" for segment in _spoken(transcript))


def write_tsv(transcript: Transcript, options: SubtitleOptions) -> str:
    """Write a table of start, end (integer milliseconds) and text."""
    rows = [
        f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{_one_line(segment.text)}\n"
        for segment in _spoken(transcript)
    ]
    return "start\tend\ttext\n" + "".join(rows)


def write_srt(transcript: Transcript, options: SubtitleOptions) -> str:
    """Write SubRip subtitles."""
    return "".join(
        f"{number}\n{_clock(cue.start, ',', True)} --> {_clock(cue.end, ',', True)}\n{cue.text}\n\n"
        for number, cue in enumerate(_cues(transcript, options), 1)
    )


def write_vtt(transcript: Transcript, options: SubtitleOptions) -> str:
    """Write WebVTT subtitles."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue.start, '.', False)} --> {_clock(cue.end, '.', False)}\n{cue.text}\n\n"
        for cue in _cues(transcript, options)
    )


def write_json(transcript: Transcript, options: SubtitleOptions) -> str:
    """Write Whisper's fields and what the transcript adds to them; nothing is left out."""
    value = _finite(transcript.to_json())
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


FORMATS: Mapping[str, Callable[[Transcript, SubtitleOptions], str]] = MappingProxyType(
    {
        "txt": write_txt,
        "srt": write_srt,
        "vtt": write_vtt,
        "tsv": write_tsv,
        "json": write_json,
    }
)


def _spoken(transcript: Transcript) -> list[Segment]:
    return [segment for segment in transcript.segments if segment.text.strip()]


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot hold by null."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cues(transcript: Transcript, options: SubtitleOptions) -> Iterator[_Cue]:
    spoken = _spoken(transcript)
    if not any(segment.words for segment in spoken):
        width = options.max_line_width
        for segment in spoken:
            text = _safe(_one_line(segment.text))
            wrapped = textwrap.wrap(text, width, break_long_words=False) if width else [text]
            yield _Cue(segment.start, segment.end, "\n".join(wrapped))
        return
    for lines in _broken(list(_pieces(transcript)), options):
        start, end = lines[0][0].start, lines[-1][-1].end
        if options.highlight_words:
            yield from _highlighted(lines, start, end)
        else:
            yield _Cue(start, end, _joined(lines))


def _pieces(transcript: Transcript) -> Iterator[_Piece]:
    """Yield the words with the spacing of their segment's text, which some languages lack."""
    for segment in _spoken(transcript):
        if not segment.words:
            yield _Piece(f" {_one_line(segment.text)}", segment.start, segment.end, True)
            continue
        text, position = _one_line(segment.text), 0
        for index, word in enumerate(segment.words):
            bare = word.word.strip()
            found = text.find(bare, position)
            gap = " " if found < 0 or index == 0 else text[position:found]
            position = position if found < 0 else found + len(bare)
            yield _Piece(f"{gap}{bare}", word.start, word.end, index == 0)


def _broken(pieces: Sequence[_Piece], options: SubtitleOptions) -> Iterator[list[list[_Piece]]]:
    """Group words into lines and lines into cues."""
    keeps_segments = options.max_line_count is None or options.max_line_width is None
    cue: list[list[_Piece]] = []
    for piece in pieces:
        last = cue[-1][-1] if cue else None
        paused = last is not None and piece.start - last.end > _LONG_PAUSE_S
        if cue and ((piece.opens_segment and keeps_segments) or (paused and not keeps_segments)):
            yield cue
            cue = []
        if cue and _fits(cue[-1], piece, options):
            cue[-1].append(piece)
            continue
        full = options.max_line_count is not None and len(cue) >= options.max_line_count
        if cue and (full or options.max_words_per_line is not None):
            yield cue
            cue = []
        cue.append([piece])
    if cue:
        yield cue


def _fits(line: Sequence[_Piece], piece: _Piece, options: SubtitleOptions) -> bool:
    if options.max_words_per_line is not None and len(line) >= options.max_words_per_line:
        return False
    width = len("".join(each.text for each in (*line, piece)).strip())
    return options.max_line_width is None or width <= options.max_line_width


def _highlighted(lines: Sequence[Sequence[_Piece]], start: float, end: float) -> Iterator[_Cue]:
    """Yield the same text once a word, that word underlined, and plain in the pauses."""
    plain, last = _joined(lines), start
    for row, line in enumerate(lines):
        for column, piece in enumerate(line):
            if piece.start > last:
                yield _Cue(last, piece.start, plain)
            yield _Cue(piece.start, piece.end, _joined(lines, (row, column)))
            last = piece.end
    if end > last:
        yield _Cue(last, end, plain)


def _joined(lines: Sequence[Sequence[_Piece]], marked: tuple[int, int] | None = None) -> str:
    texts = []
    for row, line in enumerate(lines):
        words = [_safe(piece.text) for piece in line]
        if marked is not None and marked[0] == row:
            word = words[marked[1]]
            bare = word.lstrip()
            words[marked[1]] = word[: len(word) - len(bare)] + f"<u>{bare}</u>"
        texts.append("".join(words).strip())
    return "\n".join(texts)


def _safe(text: str) -> str:
    return text.replace("-->", "->")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _milliseconds(seconds: float) -> int:
    return round(seconds * _STEPS_PER_S) * _STEP_MS


def _clock(seconds: float, mark: str, with_hours: bool) -> str:
    total = max(0, _milliseconds(seconds))
    hours, total = divmod(total, 3_600_000)
    minutes, total = divmod(total, 60_000)
    whole, thousandths = divmod(total, 1000)
    prefix = f"{hours:02d}:" if with_hours or hours else ""
    return f"{prefix}{minutes:02d}:{whole:02d}{mark}{thousandths:03d}"
