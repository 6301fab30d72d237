"""Turn scanned items into planned ones: lengths by headers, content keys, what to leave out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from speechadapt.audio.io import probe
from speechadapt.core.errors import AudioError, MissingExtra, StoreError
from speechadapt.core.storage import Store, is_url, split_url
from speechadapt.jobs.copies import header_copy
from speechadapt.jobs.listen import CUT_S
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.scan import Item

_THREADS = 8
_UNKNOWN_FRAMES = 1 << 40
# An estimate for what states no length: below the lowest rate speech is coded at, so that a
# recording is taken for long rather than for a clip.
_LEAST_BYTES_PER_S = 1000.0


@dataclass(frozen=True)
class FileFacts:
    """What is known about a file without decoding it.

    Args:
        key: Size and time of change; empty where the file cannot be reached.
        header_s: Seconds by its header, or estimated; None where it cannot be read.
    """

    key: str
    header_s: float | None


@dataclass(frozen=True)
class Selection:
    """Which items are taken.

    Args:
        min_duration_s: Leave out what is shorter.
        max_duration_s: Leave out what is longer; None for no limit.
        window_s: Seconds the model takes at once; None for any length.
    """

    min_duration_s: float = 0.0
    max_duration_s: float | None = None
    window_s: float | None = None


def measure_files(items: Sequence[PlanItem]) -> list[FileFacts]:
    """Read the headers of all items' files, each file once, several at a time.

    Args:
        items: The items.

    Returns:
        One value per item; a file that cannot be read is no error here.

    Raises:
        StoreError: Files behind URLs are out of reach.
    """
    paths = list(dict.fromkeys(item.path for item in items))
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="probe") as executor:
        facts = dict(zip(paths, executor.map(_measure, paths), strict=True))
    return [facts[item.path] for item in items]


def measure_file(path: Path) -> FileFacts:
    """Read one file's size, time of change and header.

    Args:
        path: The file.
    """
    try:
        found = os.stat(path)
        key = f"{found.st_size}-{found.st_mtime_ns}"
    except (OSError, ValueError):
        return FileFacts("", None)
    try:
        header_s = probe(path).header_s
    except (AudioError, MissingExtra):
        return FileFacts(key, None)
    if header_s is None:
        header_s = _estimate_s(path, found.st_size)
    return FileFacts(key, header_s)


def measure_stored(url: str) -> FileFacts:
    """Read the size, version and header of a recording behind a URL.

    Args:
        url: The recording.

    Raises:
        StoreError: The store is out of reach.
    """
    parent, name = split_url(url)
    try:
        found = Store(parent).stat(name)
        with header_copy(url, found.size) as path:
            return replace(measure_file(path), key=f"{found.size}-{found.version}")
    except StoreError:
        raise
    except OSError:
        return FileFacts("", None)


def _measure(path: str) -> FileFacts:
    return measure_stored(path) if is_url(path) else measure_file(Path(path))


def _estimate_s(path: Path, size: int) -> float:
    """Estimate the length of a file whose header states none (ogg, open-ended streams)."""
    import soundfile

    try:
        with soundfile.SoundFile(os.fspath(path)) as handle:
            if 0 < handle.frames < _UNKNOWN_FRAMES:
                return float(handle.frames / handle.samplerate)
    except (soundfile.LibsndfileError, UnicodeEncodeError):
        return size / _LEAST_BYTES_PER_S
    return size / _LEAST_BYTES_PER_S


def settle(item: PlanItem, facts: FileFacts, selection: Selection) -> PlanItem:
    """Bring an item up to date with its file: key, length, whether it is long or left out.

    Args:
        item: The item.
        facts: What is known about its file now.
        selection: What to leave out, and what is long.
    """
    item = replace(item, key=facts.key, header_s=facts.header_s)
    window_s = selection.window_s
    if window_s is None and not item.whole:
        window_s = CUT_S
    long = window_s is not None and item.audio_s > window_s
    return replace(item, long=long, skip=_why_not(item.audio_s, facts, selection))


def planned_item(item: Item) -> PlanItem:
    """Take over what a scan found; its file is looked at later.

    Args:
        item: The scanned item.
    """
    return PlanItem(
        id=item.id,
        audio_filepath=item.audio_filepath,
        path=os.fspath(item.path),
        stem=item.output_stem,
        offset=item.offset_s,
        duration=item.duration_s,
        whole=item.from_manifest,
        text=item.text,
        lang=item.lang,
        speaker=item.speaker,
    )


def _why_not(seconds: float, facts: FileFacts, selection: Selection) -> str:
    if facts.header_s is None:
        return ""
    if seconds < selection.min_duration_s:
        return f"{seconds:.2f} s, shorter than {selection.min_duration_s:g} s"
    if selection.max_duration_s is not None and seconds > selection.max_duration_s:
        return f"{seconds:.2f} s, longer than {selection.max_duration_s:g} s"
    return ""
