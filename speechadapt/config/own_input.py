"""Recordings and transcripts as people keep them: `x.txt` beside `x.flac`, or a manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from speechadapt.data.manifest import Utterance, is_manifest
from speechadapt.data.own import load_own
from speechadapt.jobs.scan import scan
from speechadapt.jobs.scan_paths import AUDIO_SUFFIXES


def gather(inputs: Sequence[str], speakers: str = "given") -> tuple[list[Utterance], list[str]]:
    """Read recordings and transcripts: `x.txt` beside `x.flac`, or a manifest.

    Args:
        inputs: Folders, files, globs or manifests.
        speakers: `given`, or `folder` for the first folder of each recording's path.

    Returns:
        The rows, audio by absolute path, and what else was found.

    Raises:
        ConfigError: An input does not exist, or nothing was found.
        DataError: A manifest is malformed.
    """
    if len(inputs) == 1 and is_manifest(inputs[0]):
        root = Path(inputs[0]).resolve().parent
        rows = load_own(Path(inputs[0]))
        names = [os.path.relpath(row.audio_filepath, root) for row in rows]
        lines: list[str] = []
    else:
        found = scan(inputs)
        rows = [
            Utterance(
                str(item.path), item.duration_s, item.offset_s, item.text, item.lang,
                item.speaker, item.id, {},
            )
            for item in found.items
        ]  # fmt: skip
        names = [item.audio_filepath for item in found.items]
        lines = [str(problem) for problem in found.problems] + _lone_texts(inputs)
    if speakers == "folder":
        folders = [Path(name).parts[0] if len(Path(name).parts) > 1 else None for name in names]
        rows = [replace(row, speaker=who) for row, who in zip(rows, folders, strict=True)]
    return rows, lines


def _lone_texts(inputs: Sequence[str]) -> list[str]:
    lone = []
    for given in inputs:
        for folder, _, files in os.walk(given):
            stems = {
                os.path.splitext(name)[0]
                for name in files
                if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES
            }
            lone += [
                os.path.join(folder, name)
                for name in sorted(files)
                if name.endswith(".txt") and os.path.splitext(name)[0] not in stems
            ]
    if not lone:
        return []
    more = ", ..." if len(lone) > 3 else ""
    return [f"{len(lone)} texts without a recording beside them: {', '.join(lone[:3])}{more}"]
