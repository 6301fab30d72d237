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
from speechadapt.core.files import hash_bytes
from speechadapt.core.storage import is_url, plain_path
from speechadapt.data.manifest import Utterance, is_manifest, read_manifest
from speechadapt.data.packed import is_packed, lay_out_first, unpack
from speechadapt.jobs.scan_paths import (
    AUDIO_SUFFIXES,
    as_path,
    is_audio_name,
    lexical,
    path_order,
    place_of,
    read_text,
    real_path,
    safe_stem,
)
from speechadapt.jobs.scan_stored import StoredInputs

_SHOWN = 10


@dataclass(frozen=True)
class Item:
    """One thing to transcribe.

    Args:
        id: A name that is unique in the scan.
        audio_filepath: What the outputs call it: the manifest's or list's string, or the path
            relative to the input (to the inputs' common folder, where there are several).
        path: Where the audio is; a URL as text.
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
    path: Path | str
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
    output: Path | str | None = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scan:
    """Find the items of a job.

    A file that is named twice is one item; a row that is there twice is two.

    Args:
        inputs: Audio files, folders, globs, manifests (`data.manifest`), `.txt` lists (one path a
            line, relative to the list's folder), Shar folders and tarred corpora (`data.packed`).
            All but the last two may be URLs, and so may the paths in manifests and lists.
        output: The job's output folder or URL; it is not walked into.
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
    avoid = None if output is None else real_path(plain_path(os.fspath(output)))
    given = [plain_path(os.fspath(each)) for each in inputs]
    stored = StoredInputs(avoid)
    found = list(_once(_expand_all(given, avoid, problems, stored)))
    items = [item for item in _items(found) if _is_wanted(item, include, exclude)]
    if not items:
        raise ConfigError(_nothing_found(given, len(found)))
    items = _with_distinct_stems(_with_unique_ids(items))
    if avoid is not None:
        _refuse_inplace_of(items, avoid)
    beside = [_text_beside(item) for item in items if is_url(os.fspath(item.path))]
    stored.read_texts(path for path in beside if path is not None)
    return Scan(tuple(_with_text(item, problems, stored) for item in items), tuple(problems))


def _expand_all(
    inputs: Sequence[str], avoid: str | None, problems: list[DataError], stored: StoredInputs
) -> list[_Found]:
    found: list[_Found] = []
    missing: list[str] = []
    for given in inputs:
        if is_url(given):
            expanded = _expand_url(given, stored)
        else:
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
    if is_packed(Path(given)):
        return _expand_file(_laid_out(given, avoid))
    if os.path.isdir(given):
        return list(_walk(os.path.abspath(given), avoid, problems))
    if os.path.lexists(given):
        return _expand_file(os.path.abspath(given))
    if not any(mark in given for mark in "*?["):
        return None
    found: list[_Found] = []
    for match in sorted(map(os.path.abspath, glob(given, recursive=True)), key=path_order):
        if os.path.isdir(match):
            found += _walk(match, avoid, problems)
        elif is_audio_name(match):
            found.append(_Found(match, os.path.dirname(match)))
    return found


def _expand_url(url: str, stored: StoredInputs) -> list[_Found] | None:
    """Expand one input behind a URL; None where it does not exist."""
    found = stored.expand(url)
    if found is None or [path for path, _ in found] != [url]:
        return None if found is None else [_Found(path, root) for path, root in found]
    folder, (stem, suffix) = found[0][1], os.path.splitext(url)
    suffix = suffix.lower()
    if suffix in (".txt", ".json") and any(stored.has(stem + end) for end in AUDIO_SUFFIXES):
        return []
    if suffix == ".txt":
        return _listed([os.fsdecode(line) for line in stored.lines(url)], folder)
    if not is_manifest(url):
        return [_Found(url, folder)]
    rows = stored.rows(url)
    return [_Found(place_of(row.audio_filepath, folder), folder, row) for row in rows]


def _expand_file(path: str) -> list[_Found]:
    folder, (stem, suffix) = os.path.dirname(path), os.path.splitext(path)
    suffix = suffix.lower()
    if suffix in (".txt", ".json") and any(os.path.lexists(stem + end) for end in AUDIO_SUFFIXES):
        return []  # what is known of a recording, named together with it by a shell's pattern
    if is_manifest(path):
        return [_Found(place_of(row.audio_filepath, folder), folder, row) for row in _rows(path)]
    if suffix != ".txt":
        return [_Found(path, folder)]
    return _listed(_lines(path), folder)


def _listed(lines: Iterable[str], folder: str) -> list[_Found]:
    names = [line for line in lines if line.strip()]
    return [_Found(place_of(name, folder), folder, Utterance(name), listed=True) for name in names]


def _laid_out(given: str, output: str | None) -> str:
    """Lay out recordings that lie in tars, in the job's state folder; return their manifest."""
    if output is None or is_url(output):
        raise ConfigError(lay_out_first(given))
    path = os.path.realpath(given)
    name = f"{os.path.basename(path)}-{hash_bytes(os.fsencode(path))[:8]}"
    return str(unpack(Path(given), Path(output, ".speechadapt", "unpacked", name)))


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
            if is_audio_name(name) and not name.startswith(".")
        )
    for path in sorted(paths, key=path_order):
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
    roots = {lexical(each.root) for each in found if each.row is None}
    base = os.path.commonpath(roots) if roots else ""
    repeated = Counter(each.path for each in found if each.row is not None)
    for each in found:
        if each.row is None:
            name = os.path.relpath(lexical(each.path), base)
            stem = os.path.splitext(name)[0]
            yield Item(name, name, as_path(each.path), output_stem=stem)
            continue
        row = each.row
        alone = os.path.isabs(row.audio_filepath) or "://" in row.audio_filepath
        stem = safe_stem(each.path if alone else row.audio_filepath)
        if repeated[each.path] > 1 and (row.offset or row.duration is not None):
            end = "" if row.duration is None else f"{row.offset + row.duration:.2f}"
            stem += f"-{row.offset:.2f}-{end}"
        yield Item(
            id=row.id or row.audio_filepath,
            audio_filepath=row.audio_filepath,
            path=as_path(each.path),
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
            stems[place] += os.path.splitext(items[place].path)[1]
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


def _refuse_inplace_of(items: Sequence[Item], output: str) -> None:
    """Outputs beside their inputs could replace a reference text `x.txt` of `x.flac`."""
    folders = {os.path.dirname(item.path): item for item in items}
    real = {folder: os.path.normpath(real_path(folder)) for folder in folders}
    for item in items:
        target = os.path.dirname(os.path.join(output, item.output_stem))
        if os.path.normpath(target) == real[os.path.dirname(item.path)]:
            raise ConfigError(
                f"the outputs of {item.audio_filepath!r} would land beside it in {target!r}; "
                "choose an output folder apart from the inputs."
            )


def _text_beside(item: Item) -> str | None:
    """Return where the reference `x.txt` of `x.flac` would be, of an item that is no row."""
    if item.from_manifest or item.text is not None:
        return None
    return os.path.splitext(item.path)[0] + ".txt"


def _with_text(item: Item, problems: list[DataError], stored: StoredInputs) -> Item:
    """Add the reference text to an item that has one beside it."""
    path = _text_beside(item)
    if path is None:
        return item
    try:
        data = stored.text(path) if is_url(path) else read_text(path)
        if data is None:
            return item
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror or error if isinstance(error, OSError) else "it is not UTF-8"
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
