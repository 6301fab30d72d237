"""What a recogniser's adapter is told about all clips: whom to listen to, or words to expect.

recogniser = load("mini-usm", adapter="runs/adapt-target_speaker/best")
tell(recogniser, condition="ann.wav")
tell(recogniser, condition="bob.wav")          # somebody else from here on
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechadapt.adapters.attach import active
from speechadapt.adapters.handle import Handle, attachments, router_of
from speechadapt.adapters.memory import remember
from speechadapt.audio.io import decode_audio
from speechadapt.core.errors import ConfigError, DataError
from speechadapt.core.files import hash_file
from speechadapt.encoders.base import Encoder

if TYPE_CHECKING:
    from speechadapt.models.recogniser import Recogniser

_MEMORY, _STRENGTH = "memory", "strength"
_WAYS = "an enrolment (--condition FILE) or words (--hot-words FILE, one a line)"


@dataclass(frozen=True)
class Told:
    """What holds for every clip.

    Args:
        conditions: One value by the name of each condition.
        sources: What it was made of, JSON types only.
    """

    conditions: Mapping[str, Any]
    sources: Mapping[str, Any]

    @contextmanager
    def of(self, encoder: Encoder, count: int) -> Iterator[None]:
        """Tell the adapters that act by default, inside a `with` block.

        Args:
            encoder: The encoder.
            count: Clips of the batch.
        """
        names = router_of(encoder).default.rows[0]
        with active(encoder, names, {key: [one] * count for key, one in self.conditions.items()}):
            yield


def tell(
    recogniser: Recogniser,
    condition: str | Path | None = None,
    hot_words: str | Path | None = None,
    strength: float | None = None,
) -> None:
    """Tell a recogniser's adapter what holds for all clips from here on.

    Args:
        recogniser: With an adapter that reads a memory.
        condition: A recording of the speaker to listen to.
        hot_words: A file of words or phrases to expect, one a line.
        strength: How much the memory counts; None as the adapter says, 0 not at all.

    Raises:
        ConfigError: No adapter reads it, or one reads something else.
        AudioError: The recording cannot be used.
        DataError: The file of words cannot be read.
    """
    handles = attachments(recogniser.encoder).values()
    reading = [handle for handle in handles if handle.method.needs]
    given = {"condition": condition, "hot_words": hot_words, "strength": strength}
    asked = [name for name, value in given.items() if value is not None]
    if not reading:
        if asked:
            raise ConfigError(
                f"{asked[0]} was given, but no adapter reads what it is told. Name the folder of "
                "one that does: --adapter FOLDER."
            )
        return
    handle = reading[0]
    _check(handle, condition, hot_words)
    conditions: dict[str, Any] = {}
    sources: dict[str, Any] = {}
    if condition is not None:
        conditions[_MEMORY] = _enrolled(recogniser.encoder, handle, Path(condition).expanduser())
        sources["condition"] = hash_file(Path(condition).expanduser())
    if hot_words is not None:
        conditions[_MEMORY] = words = read_words(Path(hot_words).expanduser())
        sources["hot_words"] = list(words)
    if strength is not None:
        conditions[_STRENGTH] = sources["strength"] = float(strength)
    recogniser.told = Told(conditions, sources)


def read_words(path: Path) -> tuple[str, ...]:
    """Return the words or phrases of a file, one a line; empty lines and `#` comments are left out.

    Raises:
        DataError: It is no text file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the words to expect cannot be read from '{path}': {error}.") from error
    words = (line.strip() for line in lines)
    return tuple(dict.fromkeys(word for word in words if word and not word.startswith("#")))


def _check(handle: Handle, condition: object, hot_words: object) -> None:
    others = handle.method.needs - {_MEMORY}
    if others:
        raise ConfigError(
            f"adapter '{handle.name}' reads '{sorted(others)[0]}' of every clip, which differs "
            "from clip to clip. Use active(encoder, ..., conditions=...)."
        )
    kind = getattr(handle.config, "memory", "frames")
    wanted, other = ("hot_words", condition) if kind == "words" else ("condition", hot_words)
    if other is not None:
        raise ConfigError(
            f"adapter '{handle.name}' was trained with {kind} for a memory. Give {wanted} instead."
        )
    if condition is None and hot_words is None:
        raise ConfigError(
            f"adapter '{handle.name}' must be told something to work by. Give {_WAYS}."
        )


@torch.inference_mode()
def _enrolled(encoder: Encoder, handle: Handle, path: Path) -> torch.Tensor:
    waveform = decode_audio(path, encoder.sample_rate).waveform
    if encoder.window_s is not None:
        waveform = waveform[: round(encoder.window_s * encoder.sample_rate)]
    clip = torch.from_numpy(waveform.copy())
    return remember(encoder, [clip], handle.config.layer, handle.config.tokens)[0]
