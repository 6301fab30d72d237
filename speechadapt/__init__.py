"""Frozen speech encoders with small adapters: transcribe folders, clean corpora, train adapters.

    recogniser = speechadapt.load("mini-usm")
    transcript = recogniser.transcribe("talk.flac")

Names are imported when they are first used, so that `import speechadapt` loads neither torch nor
transformers.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speechadapt.core.errors import SpeechadaptError as SpeechadaptError
    from speechadapt.encoders.catalog import load_encoder as load_encoder
    from speechadapt.models.build import load as load
    from speechadapt.models.recogniser import Recogniser as Recogniser
    from speechadapt.models.transcript import Transcript as Transcript

try:
    __version__ = version("speechadapt")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+unknown"

_PLACES = {
    "Recogniser": "speechadapt.models.recogniser",
    "SpeechadaptError": "speechadapt.core.errors",
    "Transcript": "speechadapt.models.transcript",
    "load": "speechadapt.models.build",
    "load_encoder": "speechadapt.encoders.catalog",
}

__all__ = ["Recogniser", "SpeechadaptError", "Transcript", "__version__", "load", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'speechadapt' has no attribute '{name}'.")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
