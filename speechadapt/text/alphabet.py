"""The symbols of a CTC head, in the on-disk format of transformers' `Wav2Vec2CTCTokenizer`.

`vocab.json` maps each symbol to its id; the pad token is the CTC blank and `|` stands between
words. The alphabet knows nothing about normalisation: it takes text that is already in its own
letters and says which characters are not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from speechadapt.core.errors import CheckpointError, DataError
from speechadapt.core.files import atomic_write_json

_ROLES = ("pad_token", "unk_token", "bos_token", "eos_token")
_DEFAULTS = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


@dataclass(frozen=True)
class Alphabet:
    """Symbols by id.

    Args:
        symbols: Every symbol; its place is its id.
        blank: The symbol CTC uses for "no label" (the tokenizer's pad token).
        delimiter: The symbol between words.
        specials: Symbols that never stand in a text (the blank, unknown, start and end tokens).
    """

    symbols: tuple[str, ...]
    blank: str = "<pad>"
    delimiter: str = "|"
    specials: frozenset[str] = frozenset({"<pad>"})

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(self.symbols):
            twice = sorted({symbol for symbol in self.symbols if self.symbols.count(symbol) > 1})
            raise DataError(f"an alphabet holds each symbol once; found twice: {twice}.")
        for role, symbol in (("blank", self.blank), ("word delimiter", self.delimiter)):
            if symbol not in self.symbols:
                raise DataError(f"the alphabet has no {role} {symbol!r}; it holds {self.symbols}.")

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id by symbol."""
        return {symbol: index for index, symbol in enumerate(self.symbols)}

    @cached_property
    def blank_id(self) -> int:
        """Id of the CTC blank."""
        return self.ids[self.blank]

    @cached_property
    def delimiter_id(self) -> int:
        """Id of the word delimiter."""
        return self.ids[self.delimiter]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids that never stand in a text; the blank is one of them."""
        return frozenset(self.ids[symbol] for symbol in self.specials | {self.blank})

    @cached_property
    def _letters(self) -> dict[str, int]:
        letters = {
            symbol: index
            for symbol, index in self.ids.items()
            if symbol not in self.specials and symbol not in (self.blank, self.delimiter)
        }
        for symbol, index in list(letters.items()):
            for other in (symbol.lower(), symbol.upper()):
                letters.setdefault(other, index)
        return letters

    def missing(self, text: str) -> list[str]:
        """Return the characters of `text` that the alphabet cannot write, each once, sorted."""
        return sorted({char for char in text if not char.isspace() and char not in self._letters})

    def encode(self, text: str) -> list[int]:
        """Spell `text`: one id per character, one delimiter between words.

        A letter the alphabet has in the other case only is written in that case.

        Args:
            text: Words between any white space; space at the ends does not count.

        Returns:
            Ids without blanks; empty where the text is empty.

        Raises:
            DataError: The alphabet lacks a character; all such characters are named.
        """
        missing = self.missing(text)
        if missing:
            raise DataError(f"the alphabet cannot write {missing} of the text {text!r}.")
        words = [[self._letters[char] for char in word] for word in text.split()]
        ids: list[int] = []
        for word in words:
            ids += [self.delimiter_id, *word] if ids else word
        return ids

    def decode(self, ids: Sequence[int], *, collapse: bool = True) -> str:
        """Read ids as text.

        Args:
            ids: Symbol ids, blanks included.
            collapse: Merge runs of one id first, as a CTC path asks for; off for label sequences.

        Returns:
            Words with single spaces between them.
        """
        kept: Iterable[int] = (key for key, _ in groupby(ids)) if collapse else ids
        symbols = (self.symbols[index] for index in kept if index not in self.special_ids)
        text = "".join(" " if symbol == self.delimiter else symbol for symbol in symbols)
        return " ".join(text.split())

    def write(self, folder: Path) -> None:
        """Write `vocab.json` and `tokenizer_config.json`, as `Wav2Vec2CTCTokenizer` reads them."""
        atomic_write_json(folder / "vocab.json", self.ids)
        roles: dict[str, str | None] = dict.fromkeys(_ROLES)
        for role, symbol in _DEFAULTS.items():
            roles[role] = symbol if symbol in self.specials else None
        roles["pad_token"] = self.blank
        atomic_write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "Wav2Vec2CTCTokenizer",
                "word_delimiter_token": self.delimiter,
                "do_lower_case": False,
                "replace_word_delimiter_char": " ",
                **roles,
            },
        )


def english() -> Alphabet:
    """Return the alphabet of the bundled English models: blank, `|`, apostrophe, a to z."""
    return Alphabet(("<pad>", "|", "'", *"abcdefghijklmnopqrstuvwxyz"))


def read_alphabet(folder: Path) -> Alphabet:
    """Read an alphabet from a model folder.

    Args:
        folder: Holds `vocab.json` and, where the special tokens are not the tokenizer's defaults,
            `tokenizer_config.json` or `special_tokens_map.json`.

    Raises:
        CheckpointError: `vocab.json` is missing, does not map each symbol to an id, has holes, or
            lacks the blank or the word delimiter.
    """
    path = folder / "vocab.json"
    table = _read_json(path)
    if table is None:
        raise CheckpointError(f"{folder} has no vocab.json: a CTC model needs one for its letters.")
    if not table or not all(isinstance(index, int) for index in table.values()):
        raise CheckpointError(f"{path} must map each symbol to its id.")
    if sorted(table.values()) != list(range(len(table))):
        raise CheckpointError(f"{path} must number its {len(table)} symbols from 0 without holes.")
    settings = (_read_json(folder / "special_tokens_map.json") or {}) | (
        _read_json(folder / "tokenizer_config.json") or {}
    )
    roles = {role: _token(settings.get(role, _DEFAULTS[role])) for role in _ROLES}
    blank = roles["pad_token"] or _DEFAULTS["pad_token"]
    try:
        return Alphabet(
            symbols=tuple(sorted(table, key=lambda symbol: int(table[symbol]))),
            blank=blank,
            delimiter=_token(settings.get("word_delimiter_token", "|")) or "|",
            specials=frozenset(token for token in roles.values() if token in table),
        )
    except DataError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold an object, got {type(value).__name__}.")
    return value


def _token(value: Any) -> str | None:
    """Unwrap a token that may be stored as text or as an added-token object."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None
