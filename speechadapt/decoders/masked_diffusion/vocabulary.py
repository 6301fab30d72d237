"""The tokens of a masked-diffusion model: how they are spelled, and which have a role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from speechadapt.core.errors import CheckpointError, DataError

TOKENIZER_FILE = "tokenizer.json"
_START, _PAD = "<s>", "<pad>"
_SPACE, _SENTENCEPIECE_SPACE = "\u0120", "\u2581"
# White space as byte-level and SentencePiece tokenizers spell it: a byte below 33 is moved by 256.
_WORD_MARKS = (
    _SENTENCEPIECE_SPACE,
    *(chr(256 + byte) for byte in range(33) if chr(byte).isspace()),
)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of one model.

    Args:
        tokenizer: Spells them.
        start_id: Stands first in every text.
        pad_id: Ends a text and fills what is left.
        size: Tokens the model can write.

    Raises:
        CheckpointError: The tokenizer has more tokens than the model can write.
    """

    tokenizer: Tokenizer
    start_id: int
    pad_id: int
    size: int

    def __post_init__(self) -> None:
        known = self.tokenizer.get_vocab_size(with_added_tokens=True)
        if known > self.size:
            raise CheckpointError(
                f"the tokenizer has {known} tokens, the model writes {self.size}. "
                "They belong to different models; give the tokenizer the model was trained with."
            )
        for role, token in (("start", self.start_id), ("pad", self.pad_id)):
            if not 0 <= token < self.size:
                raise CheckpointError(f"the {role} token {token} is none of {self.size} tokens.")

    @cached_property
    def specials(self) -> frozenset[int]:
        """Tokens that never stand in a text."""
        added = self.tokenizer.get_added_tokens_decoder()
        return frozenset({index for index, token in added.items() if token.special}) | {
            self.start_id,
            self.pad_id,
        }

    @cached_property
    def forbidden(self) -> tuple[int, ...]:
        """Tokens that must not be written: special ones but the pad, and ids without a spelling."""
        known = self.tokenizer.get_vocab_size(with_added_tokens=True)
        return tuple(sorted((self.specials - {self.pad_id}) | set(range(known, self.size))))

    @cached_property
    def _opens_word(self) -> frozenset[int]:
        table = self.tokenizer.get_vocab(with_added_tokens=True)
        return frozenset(index for token, index in table.items() if token.startswith(_WORD_MARKS))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without start and pad.

        Args:
            text: Words between any white space.
        """
        plain = " ".join(text.split())
        if not plain:
            return []
        found = self.tokenizer.encode(f" {plain}" if self._spaced else plain)
        return [token for token in found.ids if token not in self.specials]

    @cached_property
    def _spaced(self) -> bool:
        # A byte-level tokenizer tells the first word from a later one by the space before it.
        table = self.tokenizer.get_vocab(with_added_tokens=True)
        return any(token.startswith(_SPACE) for token in table)

    def text(self, tokens: Sequence[int]) -> str:
        """Spell tokens; special ones are passed over, and white space is single."""
        plain = [token for token in tokens if token not in self.specials]
        return " ".join(str(self.tokenizer.decode(plain)).split())

    def words(self, tokens: Sequence[int]) -> list[list[int]]:
        """Return the places of each word's tokens; a word begins where a token spells white space.

        Args:
            tokens: Tokens without special ones.
        """
        groups: list[list[int]] = []
        for place, token in enumerate(tokens):
            if not groups or token in self._opens_word:
                groups.append([])
            groups[-1].append(place)
        return groups

    def until_end(self, tokens: Sequence[int]) -> list[int]:
        """Return the tokens after the start up to the first pad."""
        kept = list(tokens[1:])
        return kept[: kept.index(self.pad_id)] if self.pad_id in kept else kept


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """Learn a byte-level tokenizer with a pad and a start token.

    Args:
        texts: Texts to learn from.
        size: Most tokens, the 256 bytes and the two others included.

    Raises:
        DataError: `size` has no room for them.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [AddedToken(_PAD, special=True), AddedToken(_START, special=True)]
    if size < len(alphabet) + len(specials):
        raise DataError(f"a byte-level tokenizer has 258 tokens or more, {size} were asked for.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(alphabet),
        special_tokens=specials,
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator((f" {' '.join(text.split())}" for text in texts), trainer)
    return tokenizer


def own_vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    """Return the vocabulary of a tokenizer made by `train_tokenizer`."""
    start, pad = (tokenizer.token_to_id(token) for token in (_START, _PAD))
    assert start is not None
    assert pad is not None
    return Vocabulary(tokenizer, start, pad, tokenizer.get_vocab_size(with_added_tokens=True))


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read the `tokenizer.json` of a folder.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {TOKENIZER_FILE}; save the model's fast tokenizer beside its weights."
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception on a damaged file
        raise CheckpointError(f"{path} is damaged: {error}") from error


def llama_vocabulary(folder: Path, size: int = 32000) -> Vocabulary:
    """Read a Llama or TinyLlama tokenizer from a local folder.

    The pad is the tokenizer's own where it has one, else the end token, as in training on rows
    that are filled with it.

    Args:
        folder: Holds `tokenizer.json`.
        size: Tokens the model writes.

    Raises:
        CheckpointError: The file is missing or damaged, or is no such tokenizer.
    """
    tokenizer = read_tokenizer(folder)
    start = tokenizer.token_to_id("<s>")
    end = tokenizer.token_to_id("</s>")
    pad = tokenizer.token_to_id(_PAD)
    pad = end if pad is None or pad >= size else pad
    if start is None or pad is None:
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE} has no tokens <s> and </s>; a Llama tokenizer has both."
        )
    return Vocabulary(tokenizer, start, pad, size)


def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> Vocabulary:
    """Read the vocabulary of a model folder.

    Args:
        folder: Holds `tokenizer.json`.
        config: Its `config.json`: `vocab_size`, `bos_token_id` and `pad_token_id`.

    Raises:
        CheckpointError: The tokenizer is missing, damaged or another model's, or has no roles.
    """
    try:
        start, pad = int(config["bos_token_id"]), int(config["pad_token_id"])
        size = int(config["vocab_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"config.json of '{folder.name}' must name vocab_size, bos_token_id and pad_token_id "
            f"({type(error).__name__}: {error})."
        ) from error
    return Vocabulary(read_tokenizer(folder), start, pad, size)
