"""What a job is asked to do: files, folders, globs, manifests and lists become items in order.

Folders are walked to the bottom in byte order, hidden names and the output folder left out. A
folder whose name ends like an audio file's is walked and also listed, so that it fails by name
instead of being passed over. Names may hold anything that a file system takes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.data.manifest import Utterance, read_manifest

AUDIO_SUFFIXES = frozenset(
    (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".mka", ".aac")
)
_MAX_TEXT_BYTES = 1 << 20
_SHOWN = 10


@dataclass(frozen=True)
class Item:
    """One thing to transcribe.

    Args:
        id: A name that is unique in the scan.
        audio_filepath: What the outputs call it: the manifest's or list's string, or the path
            relative to the input (to the inputs' common folder, where there are several).
        path: Where the audio is.
        offset_s: Seconds to leave out at the start.
        duration_s: Seconds wanted; None means up to the end.
        text: The reference transcript; None where there is none.
        lang: BCP 47 language code.
        speaker: Anything that names the speaker.
        from_manifest: A manifest's row, which is decoded whole.
        output_stem: Path of its outputs inside the output folder, without a format's suffix.
    """

    id: str
    audio_filepath: str
    path: Path
    offset_s: float = 0.0
    duration_s: float | None = None
    text: str | None = None
    lang: str | None = None
    speaker: str | None = None
    from_manifest: bool = False
    output_stem: str = ""


@dataclass(frozen=True)
class Scan:
    """What was found.

    Args:
        items: In the order of the inputs; sorted inside folders and globs.
        problems: Reference texts and folders that cannot be read; they cost no item.
    """

    items: tuple[Item, ...]
    problems: tuple[DataError, ...] = ()


@dataclass(frozen=True)
class _Found:
    """A file with the folder its name is relative to, or a row of a manifest or list."""

    path: str
    root: str
    row: Utterance | None = None
    listed: bool = False


def scan(
    inputs: Sequence[str | Path],
    output: Path | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scan:
    """Find the items of a job.

    A file that is named twice is one item; a row that is there twice is two.

    Args:
        inputs: Audio files, folders, globs, `.jsonl` manifests, `.txt` lists (one path a line,
            relative to the list's folder).
        output: The job's output folder; it is not walked into.
        include: Keep only what matches one of these patterns, by path or by name.
        exclude: Leave out what matches one of these patterns.

    Returns:
        At least one item.

    Raises:
        ConfigError: An input does not exist, nothing was found, two items would write the same
            outputs, or the outputs would land beside their inputs.
        DataError: A manifest or list cannot be read, or is malformed; the message names its lines.
    """
    problems: list[DataError] = []
    avoid = None if output is None else os.path.realpath(output)
    given = [os.fspath(each) for each in inputs]
    found = list(_once(_expand_all(given, avoid, problems)))
    items = [item for item in _items(found) if _is_wanted(item, include, exclude)]
    if not items:
        raise ConfigError(_nothing_found(given, len(found)))
    items = _with_distinct_stems(_with_unique_ids(items))
    if avoid is not None:
        _refuse_in_place(items, avoid)
    return Scan(tuple(_with_text(item, problems) for item in items), tuple(problems))


def _expand_all(
    inputs: Sequence[str], avoid: str | None, problems: list[DataError]
) -> list[_Found]:
    found: list[_Found] = []
    missing: list[str] = []
    for given in inputs:
        expanded = _expand(given, avoid, problems)
        if expanded is None:
            missing.append(f"input {given!r} does not exist.")
        else:
            found += expanded
    if missing:
        more = f"\n... and {len(missing) - _SHOWN} more." if len(missing) > _SHOWN else ""
        raise ConfigError("\n".join(missing[:_SHOWN]) + more)
    return found


def _expand(given: str, avoid: str | None, problems: list[DataError]) -> list[_Found] | None:
    """Expand one input; None where it does not exist."""
    if os.path.isdir(given):
        return list(_walk(os.path.abspath(given), avoid, problems))
    if os.path.lexists(given):
        return _expand_file(os.path.abspath(given))
    if not any(mark in given for mark in "*?["):
        return None
    found: list[_Found] = []
    for match in sorted(map(os.path.abspath, glob(given, recursive=True)), key=_order):
        if os.path.isdir(match):
            found += _walk(match, avoid, problems)
        elif _is_audio_name(match):
            found.append(_Found(match, os.path.dirname(match)))
    return found


def _expand_file(path: str) -> list[_Found]:
    folder, suffix = os.path.dirname(path), os.path.splitext(path)[1].lower()
    if suffix == ".jsonl":
        return [_Found(_place(row.audio_filepath, folder), folder, row) for row in _rows(path)]
    if suffix != ".txt":
        return [_Found(path, folder)]
    stem = os.path.splitext(path)[0]
    if any(os.path.lexists(stem + each) for each in AUDIO_SUFFIXES):
        return []  # a reference text, named together with its audio by a shell's pattern
    names = [line for line in _lines(path) if line.strip()]
    return [_Found(_place(name, folder), folder, Utterance(name), listed=True) for name in names]


def _walk(root: str, avoid: str | None, problems: list[DataError]) -> Iterator[_Found]:
    """Yield the audio files below a folder, and the folders that are named like one."""

    def note(error: OSError) -> None:
        problems.append(DataError(f"folder {error.filename!r} cannot be read: {error.strerror}."))

    paths: list[str] = []
    visited = {os.path.realpath(root)}
    for folder, names, files in os.walk(root, onerror=note, followlinks=True):
        kept = []
        for name in names:
            path = os.path.join(folder, name)
            real = os.path.realpath(path)
            if not name.startswith(".") and real != avoid and real not in visited:
                visited.add(real)
                kept.append(name)
        names[:] = kept
        paths += (
            os.path.join(folder, name)
            for name in (*kept, *files)
            if _is_audio_name(name) and not name.startswith(".")
        )
    for path in sorted(paths, key=_order):
        yield _Found(path, root)


def _once(found: Iterable[_Found]) -> Iterator[_Found]:
    seen: set[str] = set()
    for each in found:
        if each.row is None:
            if each.path in seen:
                continue
            seen.add(each.path)
        yield each


def _items(found: Sequence[_Found]) -> Iterator[Item]:
    roots = {each.root for each in found if each.row is None}
    base = os.path.commonpath(roots) if roots else ""
    repeated = Counter(each.path for each in found if each.row is not None)
    for each in found:
        if each.row is None:
            name = os.path.relpath(each.path, base)
            stem = os.path.splitext(name)[0]
            yield Item(name, name, Path(each.path), output_stem=stem)
            continue
        row = each.row
        stem = _safe_stem(each.path if os.path.isabs(row.audio_filepath) else row.audio_filepath)
        if repeated[each.path] > 1 and (row.offset or row.duration is not None):
            end = "" if row.duration is None else f"{row.offset + row.duration:.2f}"
            stem += f"-{row.offset:.2f}-{end}"
        yield Item(
            id=row.id or row.audio_filepath,
            audio_filepath=row.audio_filepath,
            path=Path(each.path),
            offset_s=row.offset,
            duration_s=row.duration,
            text=row.text,
            lang=row.lang,
            speaker=row.speaker,
            from_manifest=not each.listed,
            output_stem=stem,
        )


def _is_wanted(item: Item, include: Sequence[str], exclude: Sequence[str]) -> bool:
    names = (item.audio_filepath, os.path.basename(item.audio_filepath))

    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)

    return (not include or matches(include)) and not matches(exclude)


def _nothing_found(inputs: Sequence[str], left_out: int) -> str:
    shown = ", ".join(repr(each) for each in inputs[:_SHOWN]) or "no input at all"
    found = f"{left_out} files, all left out by --include and --exclude" if left_out else "none"
    suffixes = " ".join(sorted(AUDIO_SUFFIXES))
    return f"looked for audio ({suffixes}) in {shown}; found {found}."


def _with_unique_ids(items: Sequence[Item]) -> list[Item]:
    seen: Counter[str] = Counter()
    unique = []
    for item in items:
        seen[item.id] += 1
        count = seen[item.id]
        unique.append(replace(item, id=f"{item.id}#{count}") if count > 1 else item)
    return unique


def _with_distinct_stems(items: Sequence[Item]) -> list[Item]:
    """Keep the source's suffix where two items would write the same outputs.

    Raises:
        ConfigError: That does not tell them apart.
    """
    stems = [item.output_stem for item in items]
    extended = [False] * len(items)
    while True:
        counts = Counter(stems)
        places = [i for i, stem in enumerate(stems) if counts[stem] > 1 and not extended[i]]
        if not places:
            break
        for place in places:
            stems[place] += items[place].path.suffix
            extended[place] = True
    seen: dict[str, Item] = {}
    clashes = []
    for place, item in enumerate(items):
        stem, count = stems[place], 1
        while stem in seen and seen[stem].path == item.path:
            count += 1
            stem = f"{stems[place]}~{count}"
        if stem in seen:
            clashes.append(f"{str(item.path)!r} and {str(seen[stem].path)!r} (both {stem!r})")
        seen[stem], stems[place] = item, stem
    if clashes:
        more = f"\n... and {len(clashes) - _SHOWN} more" if len(clashes) > _SHOWN else ""
        raise ConfigError(
            "two inputs would write the same outputs: "
            + "\n".join(clashes[:_SHOWN])
            + more
            + ". Give a folder that holds both, or run two jobs."
        )
    return [replace(item, output_stem=stem) for item, stem in zip(items, stems, strict=True)]


def _refuse_in_place(items: Sequence[Item], output: str) -> None:
    """Outputs beside their inputs could replace a reference text `x.txt` of `x.flac`."""
    folders = {os.path.dirname(item.path): item for item in items}
    real = {folder: os.path.realpath(folder) for folder in folders}
    for item in items:
        target = os.path.dirname(os.path.join(output, item.output_stem))
        if os.path.normpath(target) == real[os.path.dirname(item.path)]:
            raise ConfigError(
                f"the outputs of {item.audio_filepath!r} would land beside it in {target!r}; "
                "choose an output folder apart from the inputs."
            )


def _with_text(item: Item, problems: list[DataError]) -> Item:
    """Add the reference `x.txt` beside `x.flac` to an item that is no manifest row."""
    path = os.path.splitext(item.path)[0] + ".txt"
    if item.from_manifest or item.text is not None or not os.path.lexists(path):
        return item
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _MAX_TEXT_BYTES:
            raise DataError(f"reference {path!r} is no text file below {_MAX_TEXT_BYTES} bytes.")
        text = Path(path).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problems.append(DataError(f"reference {path!r} cannot be read: {found}."))
    except DataError as error:
        problems.append(error)
    else:
        return replace(item, text=" ".join(text.split()))
    return item


def _rows(path: str) -> list[Utterance]:
    try:
        return read_manifest(Path(path))
    except OSError as error:
        raise DataError(f"manifest {path!r} cannot be read: {error.strerror}.") from error


def _lines(path: str) -> list[str]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"list {path!r} cannot be read: {error.strerror}.") from error
    return [os.fsdecode(line) for line in data.splitlines()]


def _place(name: str, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, name))


def _safe_stem(name: str) -> str:
    """Make a row's path one that stays inside the output folder."""
    parts = os.path.splitext(os.path.normpath(name))[0].split(os.sep)
    return os.path.join(*([part for part in parts if part not in ("", ".", "..")] or ["item"]))


def _is_audio_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES


def _order(path: str) -> list[bytes]:
    return [os.fsencode(part) for part in path.split(os.sep)]
