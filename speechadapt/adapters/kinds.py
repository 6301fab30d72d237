"""The kinds of composition by name. The folder `compose/` is their list.

A file `compose/<name>.py` that publishes `KIND` is the kind `<name>`. A kind turns parts that are
attached already into names that act: those of the parts, or that of a new attachment.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechadapt.adapters.handle import Handle, attachment
from speechadapt.adapters.routing import Names
from speechadapt.core.errors import CatalogError, ConfigError, near_misses
from speechadapt.core.shapes import Clip
from speechadapt.encoders.base import Encoder

_FOLDER = Path(__file__).parent / "compose"


@dataclass(frozen=True)
class Part:
    """One part of a composition, attached.

    Args:
        label: How it was written.
        names: The attachments that act for it, one after the other.
    """

    label: str
    names: Names


@dataclass(frozen=True)
class Request:
    """What is to be composed.

    Args:
        encoder: Where.
        name: What to call a new attachment.
        text: The composition as it was written.
        parts: Its parts.
        weights: One number for each; empty where none was given.
        config: The kind's settings.
        clips: Recordings to look at, where a kind needs some.
    """

    encoder: Encoder
    name: str
    text: str
    parts: tuple[Part, ...]
    weights: tuple[float, ...]
    config: Any
    clips: tuple[Clip, ...] = ()

    def handles(self) -> list[Handle]:
        """Return the parts' attachments.

        Raises:
            ConfigError: A part is a stack.
        """
        for part in self.parts:
            if len(part.names) != 1:
                raise ConfigError(
                    f"'{self.text}' takes single adapters, but '{part.label}' is a stack. "
                    "Compose its adapters one by one."
                )
        return [attachment(self.encoder, part.names[0]) for part in self.parts]


@dataclass(frozen=True)
class Kind:
    """A kind of composition.

    Args:
        config: Frozen dataclass of its settings.
        build: Makes it; returns what acts.
        source: Paper and section.
        least: Fewest parts.
        weighted: Whether parts may carry weights.
        of: What its parts are: adapters, or one index from which they are chosen.
        learns: Whether it has tensors of its own to train.
    """

    config: type
    build: Callable[[Request], Names]
    source: str
    least: int = 2
    weighted: bool = False
    of: str = "adapters"
    learns: bool = False


def kind_names() -> list[str]:
    """List the kinds, sorted."""
    return sorted(_files())


def kind_of(name: str) -> Kind:
    """Return one kind.

    Args:
        name: Its file's stem.

    Raises:
        CatalogError: There is no such kind (near misses are named), or its file publishes none.
    """
    if name not in _files():
        raise CatalogError(
            f"there is no composition '{name}'.{near_misses(name, {*_files(), 'auto'})}"
        )
    module = f"speechadapt.adapters.compose.{name}"
    found = getattr(importlib.import_module(module), "KIND", None)
    if not isinstance(found, Kind):
        raise CatalogError(
            f"composition '{name}' was looked for in {module}, which publishes no KIND. "
            "Set KIND = Kind(...) at the end of that file."
        )
    return found


def kind_title(name: str) -> str:
    """Return the first line of a kind's docstring, without running its file.

    Args:
        name: Its file's stem.
    """
    text = ast.get_docstring(ast.parse(_files()[name].read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def _files() -> dict[str, Path]:
    return {path.stem: path for path in _FOLDER.glob("*.py") if not path.stem.startswith("_")}
