"""From text tokens to words: split at spaces, or at characters where a script has none.

Source: openai-whisper, `split_to_word_tokens` and `merge_punctuations` (the rules, not the code).
"""

from __future__ import annotations

import string
from collections.abc import Sequence

from speechadapt.decoders.whisper_ar.tokens import Vocabulary

_SPACELESS = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_BEFORE = "\"'\u201c\u00bf([{-"
_AFTER = "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a\u201d)]}\u3001"
_BROKEN = "\ufffd"

Piece = tuple[str, int]


def group_words(vocabulary: Vocabulary, tokens: Sequence[int], language: str | None) -> list[Piece]:
    """Group text tokens into words.

    Args:
        vocabulary: Spells the tokens.
        tokens: Text tokens.
        language: Language code; languages without spaces are split at characters.

    Returns:
        Each word's spelling, its space before included, and its number of tokens. Punctuation
        belongs to the word it touches.
    """
    pieces = _characters(vocabulary, tokens)
    if language not in _SPACELESS:
        pieces = _spaced(pieces)
    return _with_punctuation(pieces)


def _characters(vocabulary: Vocabulary, tokens: Sequence[int]) -> list[Piece]:
    """Group tokens until they spell whole characters."""
    whole = vocabulary.text(tokens)
    pieces: list[Piece] = []
    pending: list[int] = []
    offset = 0
    for token in tokens:
        pending.append(token)
        spelling = vocabulary.text(pending)
        at = offset + spelling.find(_BROKEN)
        # A replacement character may also be what was truly written.
        if _BROKEN not in spelling or whole[at : at + 1] == _BROKEN:
            pieces.append((spelling, len(pending)))
            offset += len(spelling)
            pending = []
    if pending:
        pieces.append((vocabulary.text(pending), len(pending)))
    return pieces


def _spaced(pieces: Sequence[Piece]) -> list[Piece]:
    words: list[Piece] = []
    for spelling, count in pieces:
        alone = spelling.startswith(" ") or spelling.strip() in string.punctuation
        if alone or not words:
            words.append((spelling, count))
        else:
            words[-1] = (words[-1][0] + spelling, words[-1][1] + count)
    return words


def _with_punctuation(words: Sequence[Piece]) -> list[Piece]:
    """Join opening marks to the word after them and closing marks to the word before."""
    opened: list[Piece] = []
    for spelling, count in reversed(words):
        if opened and spelling.startswith(" ") and spelling.strip() in _BEFORE:
            opened[-1] = (spelling + opened[-1][0], count + opened[-1][1])
        else:
            opened.append((spelling, count))
    closed: list[Piece] = []
    for spelling, count in reversed(opened):
        if closed and not closed[-1][0].endswith(" ") and spelling in _AFTER:
            closed[-1] = (closed[-1][0] + spelling, closed[-1][1] + count)
        else:
            closed.append((spelling, count))
    return closed
