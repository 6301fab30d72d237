"""The exceptions of the package, all of them, in one tree.

    SpeechadaptError
    |-- ConfigError            a setting, a flag or a recipe key
    |-- CatalogError           a name nobody has (carries near misses)
    |-- SiteError              a role or a site the encoder does not offer
    |-- ShapeError             tensors that do not fit one another
    |-- DataError              a manifest line, a text, a corpus
    |-- AudioError             a recording that cannot be used (carries a reason code)
    |-- CheckpointError        weights, model folders, training state
    |-- StoreError             files behind a URL are out of reach (also an OSError)
    |-- JobError               a job folder or its state
    |   `-- FingerprintError   the job folder belongs to other options
    `-- MissingExtra           an optional dependency is not installed (also an ImportError)

A message says what was asked, what was found, and what would work, in that order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SpeechadaptError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


class ConfigError(SpeechadaptError):
    """A setting, a flag or a recipe key is wrong."""


class CatalogError(SpeechadaptError):
    """A name is not in its catalogue."""


class SiteError(SpeechadaptError):
    """An encoder does not offer the role or site asked for."""


class ShapeError(SpeechadaptError):
    """Tensors do not fit one another."""


class DataError(SpeechadaptError):
    """A manifest line, a text or a corpus is wrong."""


class AudioError(SpeechadaptError):
    """A recording cannot be used.

    Args:
        reason: One of `UNREADABLE NO_AUDIO EMPTY TOO_SHORT NONFINITE`.
        message: What was found, for a person.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return type(self), (self.reason, str(self))


class CheckpointError(SpeechadaptError):
    """Weights, a model folder or a training state cannot be used."""


class StoreError(SpeechadaptError, OSError):
    """Files behind a URL are out of reach, also after repeated calls."""


class JobError(SpeechadaptError):
    """A job folder or its state is wrong."""


class FingerprintError(JobError):
    """The job folder was made with other options or another model."""


class MissingExtra(SpeechadaptError, ImportError):  # noqa: N818 - the name users of pip know
    """An optional dependency is not installed.

    Args:
        extra: The extra's name, as in `pip install 'speechadapt[extra]'`.
        purpose: What needs it.
    """

    def __init__(self, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the extra '{extra}': pip install 'speechadapt[{extra}]'."
        )
        self.extra = extra
        self.purpose = purpose

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        return type(self), (self.extra, self.purpose)


def near_misses(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Say which known names resemble `name`, as the tail of an error message.

    Args:
        name: The name that was asked for.
        known: The names on offer.
        limit: The most names to suggest.

    Returns:
        ` Did you mean a, b?` or, where nothing is near, ` On offer: ...`.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=limit, cutoff=0.5)
    if close:
        return f" Did you mean {', '.join(close)}?"
    return f" On offer: {', '.join(names) or 'nothing'}."
