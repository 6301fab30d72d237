"""`speechadapt degrade`: degraded copies of clean recordings, always the same ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from speechadapt.audio.degrade import Degradation
    from speechadapt.audio.span import Signal

HELP = "Degrade clean recordings, to test restoration."

RECORD = "degraded.jsonl"


def command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A folder of clean recordings.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the degraded ones, in FLAC.")
    ],
    preset: Annotated[str, typer.Option(help="miipher, sidon, telephone.")] = "miipher",
    seed: Annotated[int, typer.Option(help="Another seed gives other damage.")] = 0,
    noise: Annotated[
        Path | None, typer.Option(help="A folder of noise recordings.", show_default=False)
    ] = None,
    rooms: Annotated[
        Path | None, typer.Option(help="A folder of room impulse responses.", show_default=False)
    ] = None,
) -> None:
    """Degrade every recording of a folder; the tree of folders is kept.

    What was done to each stands in degraded.jsonl. A recording's damage depends on the seed, its
    path, the preset and the noise and rooms given, not on the other recordings.
    """
    from speechadapt.audio.degrade import preset as settings_of
    from speechadapt.core.errors import ConfigError, DataError
    from speechadapt.core.files import write_lines
    from speechadapt.metrics.quality_report import audio_files

    settings = settings_of(preset)
    if not source.is_dir():
        raise ConfigError(f"'{source}' is no folder.")
    if output.resolve() == source.resolve():
        raise ConfigError("the output folder is the input folder; clean recordings would be lost.")
    found = audio_files(source)
    if not found:
        raise DataError(f"'{source}' holds no recordings.")
    sounds = _Sounds(noise), _Sounds(rooms)
    rows = [
        _degraded(name, path, output / f"{name}.flac", settings, seed, sounds)
        for name, path in found.items()
    ]
    write_lines(output / RECORD, rows)
    print(f"{len(rows)} recordings degraded by '{preset}', seed {seed}: {output}")


class _Sounds:
    """The recordings of a folder at whatever rate is asked for."""

    def __init__(self, folder: Path | None) -> None:
        from speechadapt.metrics.quality_report import audio_files

        self.files = {} if folder is None else audio_files(folder)
        self._at: dict[int, list[Signal]] = {}

    def at(self, sample_rate: int) -> list[Signal]:
        """Return all of them."""
        from speechadapt.audio.io import decode_audio

        if sample_rate not in self._at:
            paths = self.files.values()
            self._at[sample_rate] = [decode_audio(path, sample_rate).waveform for path in paths]
        return self._at[sample_rate]


def _degraded(
    name: str,
    path: Path,
    target: Path,
    settings: Degradation,
    seed: int,
    sounds: tuple[_Sounds, _Sounds],
) -> dict[str, Any]:
    import numpy as np
    import soundfile

    from speechadapt.audio.degrade import degrade
    from speechadapt.audio.io import decode_audio, probe
    from speechadapt.core.files import atomic_write
    from speechadapt.core.seed import generator

    rate = probe(path).sample_rate
    clean = decode_audio(path, rate).waveform
    noises, rooms = (one.at(rate) for one in sounds)
    done = degrade(clean, rate, settings, generator("degrade", seed, name), noises, rooms)
    scale = 1.0 / max(1.0, float(np.abs(done.signal).max(initial=0.0)) / 0.999)
    samples = done.signal * np.float32(scale)
    atomic_write(
        target, lambda temporary: soundfile.write(temporary, samples, rate, subtype="PCM_16")
    )
    return {
        "id": name,
        "audio_filepath": str(target),
        "clean": str(path),
        "sample_rate": rate,
        "scale": round(scale, 6),
        "applied": _named(done.applied, sounds),
    }


def _named(applied: list[dict[str, Any]], sounds: tuple[_Sounds, _Sounds]) -> list[dict[str, Any]]:
    """Write the names of noises and rooms in place of their numbers."""
    names = {key: list(one.files) for key, one in zip(("noise", "response"), sounds, strict=True)}
    return [
        {key: names[key][value] if key in names else value for key, value in one.items()}
        for one in applied
    ]
