"""How a page reaches audio: a relative link, or the samples in the page itself."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from urllib.parse import quote

from speechadapt.audio.io import decode_audio, probe
from speechadapt.core.errors import AudioError, MissingExtra


def relative_link(
    path: Path, folder: Path, offset_s: float = 0.0, duration_s: float | None = None
) -> str:
    """Return a link from a page to a file, or to a stretch of it.

    Args:
        path: The file.
        folder: Where the page lies.
        offset_s: Where the stretch begins, in seconds.
        duration_s: How long it is; None for all of the rest.
    """
    name = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    link = quote(os.fsencode(name.replace(os.sep, "/")))
    if not offset_s and duration_s is None:
        return link
    end = "" if duration_s is None else f",{offset_s + duration_s:.3f}"
    return f"{link}#t={offset_s:.3f}{end}"


def embedded_audio(
    path: Path, offset_s: float = 0.0, duration_s: float | None = None
) -> str | None:
    """Return a recording, or a stretch of it, as a data link: mono FLAC of 16 bits.

    Args:
        path: The file.
        offset_s: Where the stretch begins, in seconds.
        duration_s: How long it is; None for all of the rest.

    Returns:
        The link; None where the file cannot be decoded.
    """
    import soundfile

    try:
        rate = probe(path).sample_rate
        decoded = decode_audio(path, rate, offset_s=offset_s, duration_s=duration_s)
    except (AudioError, MissingExtra):
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, decoded.waveform, rate, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(buffer.getvalue()).decode()}"
