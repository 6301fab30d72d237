"""Compositions as values: which adapters act, and how they act together.

    digits                              one adapter, by its name or its folder
    stack(noisy, digits)                one after the other
    fuse(digits, orders, wake)          several at once, weighted by what is heard
    average(digits: 0.7, orders: 0.3)   several at once, with fixed weights
    fuse(a, stack(b, c), method=gated)  nested, with a setting
    auto(adapters/)                     chosen for each utterance from an index (kind `route`)

A kind of composition is a file in `compose/`; this module knows none of them. Names with spaces,
commas or brackets stand in quotes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from speechadapt.core.errors import ConfigError

Setting: TypeAlias = bool | int | float | str
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"[^"]*"|'[^']*')|(?P<mark>[(),:=])|(?P<word>[^\s(),:="']+))"""
)
_KIND = re.compile(r"[a-z][a-z0-9_]*")
_PLAIN = re.compile(r"[^\s(),:=\"']+")
_AUTO, _ROUTE = "auto", "route"


@dataclass(frozen=True)
class Single:
    """One adapter.

    Args:
        name: Its name, or its folder.
    """

    name: str

    def __str__(self) -> str:
        """Return it as `parse` reads it."""
        return _quoted(self.name)


@dataclass(frozen=True)
class Composed:
    """Adapters acting together.

    Args:
        kind: A file's stem in `compose/`.
        parts: What acts together, in order.
        weights: One number for each part; empty where none is given.
        settings: The kind's settings by name.
    """

    kind: str
    parts: tuple[Composition, ...] = ()
    weights: tuple[float, ...] = ()
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it as `parse` reads it."""
        weights = [f": {_number(one)}" for one in self.weights] or [""] * len(self.parts)
        parts = [f"{part}{weight}" for part, weight in zip(self.parts, weights, strict=True)]
        settings = [f"{key}={_shown(value)}" for key, value in self.settings.items()]
        return f"{self.kind}({', '.join(parts + settings)})"


Composition: TypeAlias = Single | Composed


def stack(*parts: str | Composition) -> Composed:
    """Return adapters acting one after the other."""
    return Composed("stack", _values(parts))


def fuse(*parts: str | Composition, **settings: Setting) -> Composed:
    """Return adapters whose changes are weighted by what is heard; see `compose/fuse.py`."""
    return Composed("fuse", _values(parts), settings=settings)


def average(weights: Mapping[str, float]) -> Composed:
    """Return adapters whose changes are averaged with fixed weights.

    Args:
        weights: A positive number for each adapter; they need not sum to one.
    """
    return Composed("average", _values(list(weights)), tuple(weights.values()))


def route(index: str, **settings: Setting) -> Composed:
    """Return the choice of adapters for each utterance; see `compose/route.py`.

    Args:
        index: Folder of the index.
        settings: Settings of the choice.
    """
    return Composed(_ROUTE, (Single(index),), settings=settings)


def parse(text: str) -> Composition:
    """Read a composition.

    Args:
        text: See the head of this module.

    Raises:
        ConfigError: It cannot be read; the message says where.
    """
    return _Reader(text).whole()


def leaves(composition: Composition) -> tuple[str, ...]:
    """Return the adapters of a composition, each once, in order."""
    if isinstance(composition, Single):
        return (composition.name,)
    found = [name for part in composition.parts for name in leaves(part)]
    return tuple(dict.fromkeys(found))


def renamed(composition: Composition, names: Mapping[str, str]) -> Composition:
    """Return a composition with other names for its adapters.

    Args:
        composition: The composition.
        names: New names by old one; those without keep theirs.
    """
    if isinstance(composition, Single):
        return Single(names.get(composition.name, composition.name))
    parts = tuple(renamed(part, names) for part in composition.parts)
    return Composed(composition.kind, parts, composition.weights, composition.settings)


def _values(parts: Sequence[str | Composition]) -> tuple[Composition, ...]:
    return tuple(parse(part) if isinstance(part, str) else part for part in parts)


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name) and name != _AUTO:
        return name
    mark = "'" if '"' in name else '"'
    return f"{mark}{name}{mark}"


def _shown(value: Setting) -> str:
    if isinstance(value, str):
        # a quoted value stays text, whatever it looks like
        return _quoted(value) if _scalar(value) == value else f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else _number(value)


def _number(value: int | float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _scalar(word: str) -> Setting:
    if word in ("true", "false"):
        return word == "true"
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


class _Reader:
    """Reads one composition from left to right."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                raise self.problem(at, "a name, a bracket or a comma")
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind], found.start(kind)))
            at = found.end()
        self.tokens.append(("end", "", end))
        self.place = 0

    def whole(self) -> Composition:
        value = self.composition()
        if self.kind != "end":
            raise self.problem(self.at, "the end")
        return value

    @property
    def kind(self) -> str:
        return self.tokens[self.place][0]

    @property
    def at(self) -> int:
        return self.tokens[self.place][2]

    def is_mark(self, mark: str, ahead: int = 0) -> bool:
        token = self.tokens[min(self.place + ahead, len(self.tokens) - 1)]
        return token[:2] == ("mark", mark)

    def take(self) -> str:
        text = self.tokens[self.place][1]
        self.place += 1
        return text

    def composition(self) -> Composition:
        if self.kind == "text":
            return Single(self.take()[1:-1])
        if self.kind != "word":
            raise self.problem(self.at, "the name of an adapter or of a composition")
        start, word = self.at, self.take()
        if not self.is_mark("("):
            return Composed(_ROUTE) if word == _AUTO else Single(word)
        if not _KIND.fullmatch(word):
            raise self.problem(start, "the kind of a composition, such as fuse")
        self.take()
        return self.arguments(_ROUTE if word == _AUTO else word)

    def arguments(self, kind: str) -> Composed:
        parts: list[Composition] = []
        weights: list[float] = []
        settings: dict[str, Setting] = {}
        while not self.is_mark(")"):
            if self.kind == "word" and self.is_mark("=", 1):
                self.setting(settings)
            else:
                self.part(parts, weights)
            if self.is_mark(","):
                self.take()
            elif not self.is_mark(")"):
                raise self.problem(self.at, "a comma or a closing bracket")
        self.take()
        if weights and len(weights) != len(parts):
            raise ConfigError(
                f"'{self.text}' gives {len(weights)} weights for {len(parts)} adapters of {kind}. "
                "Give all of them a weight, or none."
            )
        return Composed(kind, tuple(parts), tuple(weights), settings)

    def part(self, parts: list[Composition], weights: list[float]) -> None:
        parts.append(self.composition())
        if not self.is_mark(":"):
            return
        self.take()
        start, word = self.at, self.take()
        value = _scalar(word)
        if isinstance(value, bool | str):
            raise self.problem(start, "a number after the colon")
        weights.append(float(value))

    def setting(self, settings: dict[str, Setting]) -> None:
        start, key = self.at, self.take()
        self.take()
        if self.kind not in ("word", "text"):
            raise self.problem(self.at, f"a value for {key}")
        if key in settings:
            raise self.problem(start, f"one value for {key}, which is given twice")
        quoted = self.kind == "text"
        word = self.take()
        settings[key] = word[1:-1] if quoted else _scalar(word)

    def problem(self, at: int, wanted: str) -> ConfigError:
        found = f"'{self.text[at : at + 20]}'" if at < len(self.text.rstrip()) else "its end"
        return ConfigError(
            f"'{self.text}' was to be read as a composition of adapters, but at {found} there "
            f"should be {wanted}. It reads like fuse(a, b), average(a: 0.7, b: 0.3) or auto(DIR)."
        )
