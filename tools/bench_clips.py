"""Real clips for the benchmarks: from the data pack, or else the shipped ones repeated.

Choices are a function of the clips' ids alone, so every run and every machine measures the same.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from speechadapt.core.errors import ConfigError, DataError
from speechadapt.core.seed import derive_seed
from speechadapt.data.corpora.pack import load_corpus, read_audio
from speechadapt.data.manifest import Utterance, read_manifest

DEMO = Path(__file__).resolve().parents[1] / "speechadapt" / "demo"
SAMPLE_RATE = 16000
SHORT = (("orders", "test"), ("wake", "test"), ("connected", "test"), ("speech_commands", "test"))
GROUPS = {
    "orders": (("orders", "test"),),
    "wake": (("wake", "test"),),
    "digits": (("connected", "test"), ("fsdd", "test_speaker")),
    "sentences": (("librispeech", "test"), ("vctk", "test")),
}


@dataclass(frozen=True)
class Clips:
    """Clips in memory, shortest first.

    Args:
        waveforms: Mono float32 samples at 16 kHz.
        source: Where they come from, in words.
    """

    waveforms: tuple[NDArray[np.float32], ...]
    source: str

    @property
    def audio_s(self) -> float:
        """Seconds of all clips together."""
        return sum(len(one) for one in self.waveforms) / SAMPLE_RATE


@dataclass(frozen=True)
class ClipFolder:
    """Clips copied to a folder.

    Args:
        count: Files.
        audio_s: Seconds of all files together.
        source: Where they come from, in words.
        from_pack: Whether they are the pack's.
    """

    count: int
    audio_s: float
    source: str
    from_pack: bool


def find_pack(given: Path | None) -> Path | None:
    """Return the data pack's folder from the command line or SPEECHADAPT_DATA, None without one.

    Raises:
        ConfigError: A folder is named that is no pack.
    """
    named = given or (Path(value) if (value := os.environ.get("SPEECHADAPT_DATA")) else None)
    if named is not None and not (named / "manifests").is_dir():
        raise ConfigError(
            f"the data pack's folder was given as {named}, which holds no manifests/. "
            "Set --data or SPEECHADAPT_DATA, or neither for the shipped clips."
        )
    return named


def short_clips(
    pack: Path | None, count: int = 200, shortest_s: float = 1.0, longest_s: float = 5.0
) -> Clips:
    """Read real English clips of a range of lengths.

    Args:
        pack: The data pack; None takes the shipped clips.
        count: How many; clips are repeated where there are fewer.
        shortest_s: Shortest clip in seconds.
        longest_s: Longest clip in seconds.
    """
    root, rows = _rows(pack, SHORT)
    fitting = [row for row in rows if shortest_s <= (row.duration or 0.0) <= longest_s]
    chosen = repeated(by_hash(fitting), count)
    signals: dict[str, NDArray[np.float32]] = {row.id: _read(root, row) for row in fitting}
    waveforms = sorted((signals[row.id] for row in chosen), key=len)
    return Clips(tuple(waveforms), f"{_source(pack)}, {shortest_s:g} to {longest_s:g} s")


def write_folder(pack: Path | None, target: Path, per_group: int = 50) -> ClipFolder:
    """Copy clips as they are into a folder, one subfolder per group.

    The groups are orders, wake words, digits (connected and FSDD's unseen speaker by turns) and
    read sentences (LibriSpeech and VCTK by turns); a group with fewer clips is repeated under other
    names. Without the pack every group is filled from the shipped clips.

    Args:
        pack: The data pack; None takes the shipped clips.
        target: The folder.
        per_group: Clips of each group.
    """
    count, audio_s = 0, 0.0
    for group, parts in GROUPS.items():
        columns = [by_hash(_rows(pack, [part])[1]) for part in parts]
        root, _ = _rows(pack, parts[:1])
        turns = [row for turn in itertools.zip_longest(*columns) for row in turn if row is not None]
        for number, row in enumerate(repeated(turns, per_group)):
            place = target / group / f"{number:03d}-{Path(row.audio_filepath).name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(root, row, place)
            count += 1
            audio_s += soundfile.info(place).duration
    source = f"{_source(pack)}: {per_group} each of {', '.join(GROUPS)}"
    return ClipFolder(count, audio_s, source, pack is not None)


def by_hash(rows: Iterable[Utterance]) -> list[Utterance]:
    """Sort rows by the hash of their ids: an order that prefers nothing and never changes."""
    return sorted(rows, key=lambda row: (derive_seed("bench", row.id or ""), row.id))


def repeated(rows: Sequence[Utterance], count: int) -> list[Utterance]:
    """Return the first `count` rows, starting over where there are fewer.

    Raises:
        DataError: There is no row at all.
    """
    if not rows:
        raise DataError(f"{count} clips were asked for; none of the sets has one that fits.")
    return list(itertools.islice(itertools.cycle(rows), count))


def _rows(pack: Path | None, parts: Sequence[tuple[str, str]]) -> tuple[Path, list[Utterance]]:
    if pack is None:
        return DEMO, read_manifest(DEMO / "manifest.jsonl")
    rows = [row for name, split in parts for row in load_corpus(pack, name, split)]
    return pack, [row for row in rows if row.lang == "en"]


def _read(root: Path, row: Utterance) -> NDArray[np.float32]:
    samples, rate = read_audio(root, row)
    if rate != SAMPLE_RATE:
        raise DataError(f"clip '{row.id}' is at {rate} Hz; these sets are at {SAMPLE_RATE} Hz.")
    return samples


def _copy(root: Path, row: Utterance, place: Path) -> None:
    source = root / row.audio_filepath
    if source.is_file():
        shutil.copyfile(source, place)
    else:  # still inside its tar
        samples, rate = read_audio(root, row)
        soundfile.write(place, samples, rate, subtype="PCM_16")


def _source(pack: Path | None) -> str:
    return "shipped demo clips, repeated" if pack is None else "test splits of the data pack"
