"""Cuts of lhotse as rows of a manifest.

A cut is a stretch of a recording with what is known about it: supervisions say what was spoken, by
whom and in which language. One cut becomes one row; the texts of its supervisions are joined in the
order in which they begin. Only JSON is read, so lhotse need not be there. What a row cannot say is
refused: audio that lhotse would change or make while loading, and some channels of a file.

Source: https://lhotse.readthedocs.io/en/latest/cuts.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from speechadapt.core.errors import DataError

_TYPES = ("MonoCut", "MultiCut", "MixedCut", "PaddingCut")
_SINGLE = ("MonoCut", "MultiCut")
_HARMLESS = ("Resample",)  # whoever decodes the file resamples it anyway
_WRITE = "Write the audio that is meant first: cuts.save_audios(FOLDER) gives cuts of mono files."
_WHERE = {
    "memory": "lies inside the manifest",
    "shar": "lies in a tar; give the Shar folder instead of its cuts",
    "command": "comes from a command, and no command of a manifest is run",
}


def is_cut(row: Any) -> bool:
    """Say whether a line of JSON is a cut."""
    if not isinstance(row, dict) or "audio_filepath" in row:
        return False
    return row.get("type") in _TYPES or ("recording" in row and "start" in row)


def cut_row(cut: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Turn a cut into the row of a manifest.

    Args:
        cut: What lhotse wrote.
        folder: The folder of the manifest. A relative path that leads nowhere from there is taken
            from the working directory, as lhotse does.

    Returns:
        `audio_filepath, id, offset, duration` and, where they are known, `text`, `lang` and
        `speaker` (where all supervisions agree), and custom fields with plain values.

    Raises:
        DataError: A field is missing or wrong, or the audio is not simply a stretch of a file.
    """
    kind = cut.get("type", _SINGLE[0])
    if kind not in _SINGLE:
        raise DataError(f"type {kind!r} is not one stretch of a recording. {_WRITE}")
    supervisions = _supervisions(cut)
    texts = [one["text"] for one in supervisions if one.get("text") is not None]
    row: dict[str, Any] = {}
    for holder in (*(supervisions if len(supervisions) == 1 else ()), cut):
        row |= _plain(holder.get("custom"))
    row |= {
        "audio_filepath": _placed(_file(cut), folder),
        "id": str(cut.get("id") or ""),
        "offset": _seconds(cut, "start"),
        "duration": _seconds(cut, "duration"),
        "text": " ".join(texts) if texts else None,
        "lang": _common(one.get("language") for one in supervisions),
        "speaker": _common(one.get("speaker") for one in supervisions),
    }
    return row


def _supervisions(cut: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = cut.get("supervisions") or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"supervisions must be a list of objects, got {type(found).__name__}.")
    for one in found:
        if one.get("text") is not None and not isinstance(one["text"], str):
            raise DataError(f"text of supervision {one.get('id')!r} must be text.")
    return sorted(found, key=lambda one: _seconds(one, "start", "supervisions.start"))


def _file(cut: Mapping[str, Any]) -> str:
    """Return the path or URL of the one file whose channels are those of the cut."""
    recording = cut.get("recording")
    if not isinstance(recording, dict) or not isinstance(recording.get("sources"), list):
        raise DataError("recording is missing or names no sources; features alone are no audio.")
    name = f"recording {recording.get('id')!r}"
    for transform in recording.get("transforms") or ():
        change = transform.get("name") if isinstance(transform, dict) else transform
        if change not in _HARMLESS:
            raise DataError(f"{name} is changed while it is loaded ({change}). {_WRITE}")
    channels = _channels(cut.get("channel", 0))
    fitting = [one for one in recording["sources"] if _channels(one.get("channels")) & channels]
    if len(fitting) != 1 or _channels(fitting[0].get("channels")) != channels:
        here = [sorted(_channels(one.get("channels"))) for one in recording["sources"]]
        raise DataError(
            f"channel {sorted(channels)} of {name} was asked for, whose files hold {here}; here a "
            f"file's channels are mixed. {_WRITE}"
        )
    kind, path = fitting[0].get("type"), fitting[0].get("source")
    if kind not in ("file", "url") or not isinstance(path, str) or not path:
        found = _WHERE.get(str(kind), f"has a source of type {kind!r}")
        raise DataError(f"{name} {found}. Sources of type 'file' and 'url' can be read.")
    return path


def _channels(value: Any) -> set[int]:
    return set(value) if isinstance(value, list) else {value}


def _placed(source: str, folder: Path) -> str:
    path = Path(source)
    if path.is_absolute() or (folder / path).exists() or not path.exists():
        return source
    return str(path.resolve())


def _seconds(row: Mapping[str, Any], name: str, shown: str = "") -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{shown or name} must be seconds, got {value!r}.")
    return float(value)


def _common(values: Iterable[Any]) -> str | None:
    found = {value for value in values if value is not None}
    return str(found.pop()) if len(found) == 1 else None


def _plain(custom: Any) -> dict[str, Any]:
    if not isinstance(custom, dict):
        return {}
    return {key: one for key, one in custom.items() if isinstance(one, str | int | float)}
