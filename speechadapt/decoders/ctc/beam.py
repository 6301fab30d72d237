"""Prefix beam search over CTC outputs, with an optional word list and word n-gram.

A prefix is a text so far. Every path that spells it counts towards it: paths that end in a blank
and paths that end in its last label are added up apart, because a repeated label extends the text
only after a blank. Word delimiters at the ends of a text, and more than one between two words, do
not change the text, so those paths are merged as well.

The score of a text is `ln P_ctc + alpha * ln P_lm + beta * words`, in natural logarithms.

Source: Graves and Jaitly 2014 (prefix probabilities); Hannun et al. 2014, arXiv:1408.2873 (word
language model inside the search).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from speechadapt.core.errors import DataError
from speechadapt.decoders.ctc.ngram import Gram, NgramModel
from speechadapt.text.alphabet import Alphabet

_NEVER = -math.inf
_UNSEEN = -50.0  # natural logarithm for words a language model excludes: costly, yet finite
_COMPLETE = -1  # key of the spelling tree that marks the end of a word

Spelling = dict[int, Any]


@dataclass(frozen=True)
class Beam:
    """One text the search ended with.

    Args:
        labels: Its label ids, single delimiters between words.
        score: Acoustic, language-model and word-count parts together.
        log_prob: Natural logarithm of its CTC probability, over the paths that were kept.
        complete: Its last word is in the word list (always so without one).
    """

    labels: tuple[int, ...]
    score: float
    log_prob: float
    complete: bool = True


class _Prefix:
    """A node of the tree of prefixes, with its two probabilities at this frame and the next."""

    __slots__ = (
        "bonus", "children", "context", "label", "next_blank", "next_label", "on_blank", "on_label",
        "parent", "spelling", "stamp",
    )  # fmt: skip

    def __init__(self, parent: _Prefix | None, label: int, spelling: Spelling | None) -> None:
        self.parent = parent
        self.label = label
        self.spelling = spelling
        self.children: dict[int, _Prefix | None] = {}
        self.context: Gram = parent.context if parent else ()
        self.bonus: float = parent.bonus if parent else 0.0
        self.on_blank = self.on_label = self.next_blank = self.next_label = _NEVER
        self.stamp = -1

    def labels(self) -> tuple[int, ...]:
        """Spell the prefix."""
        reverse: list[int] = []
        node: _Prefix = self
        while node.parent is not None:
            reverse.append(node.label)
            node = node.parent
        return tuple(reversed(reverse))


class PrefixBeamSearch:
    """Searches for the best text of a matrix of CTC log-probabilities.

    Args:
        alphabet: Labels, blank and word delimiter.
        beam_size: Prefixes kept after each frame.
        prune_logprob: Labels below this natural log-probability are not tried at a frame.
        language_model: Scores words as they are completed.
        alpha: Weight of the language model.
        beta: Bonus for each word.
        word_list: The only words allowed; None allows all.

    Raises:
        DataError: The alphabet cannot write a word of the list.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        *,
        beam_size: int = 64,
        prune_logprob: float = -5.0,
        language_model: NgramModel | None = None,
        alpha: float = 0.5,
        beta: float = 1.0,
        word_list: Iterable[str] | None = None,
    ) -> None:
        self.alphabet = alphabet
        self.beam_size = beam_size
        self.prune_logprob = prune_logprob
        self.language_model = language_model
        self.alpha = alpha
        self.beta = beta
        self.spelling = None if word_list is None else _spelling_tree(alphabet, word_list)
        self._labels = [
            index for index in range(len(alphabet)) if index not in alphabet.special_ids
        ]

    def search(self, log_probs: Float[np.ndarray, "frames symbols"]) -> list[Beam]:
        """Return the texts of the last beam, best first.

        Args:
            log_probs: Natural log-probabilities of the valid frames.

        Returns:
            At least one text; the empty one where there are no frames.
        """
        root = _Prefix(None, self.alphabet.delimiter_id, self.spelling)
        root.on_blank = 0.0
        if self.language_model:
            root.context = self.language_model.start()
        beam = [root]
        rows = np.asarray(log_probs, dtype=np.float64)
        for frame, row in enumerate(rows.tolist()):
            kept = [label for label in self._labels if row[label] >= self.prune_logprob]
            touched = self._extend(beam, row, kept, frame)
            beam = self._prune(touched)
        return self._finish(beam)

    def _extend(
        self, beam: Sequence[_Prefix], row: Sequence[float], kept: Sequence[int], frame: int
    ) -> list[_Prefix]:
        touched: list[_Prefix] = []
        blank, delimiter = row[self.alphabet.blank_id], self.alphabet.delimiter_id
        for node in beam:
            total = _add(node.on_blank, node.on_label)
            _touch(node, frame, touched)
            node.next_blank = _add(node.next_blank, total + blank)
            for label in kept:
                value = row[label]
                if label == node.label:
                    # After a delimiter (or at the start) a further one leaves the text as it is.
                    stays = total if label == delimiter else node.on_label
                    node.next_label = _add(node.next_label, stays + value)
                    source = _NEVER if label == delimiter else node.on_blank
                else:
                    source = total
                if source == _NEVER:
                    continue
                child = node.children[label] if label in node.children else self._child(node, label)
                if child is not None:
                    _touch(child, frame, touched)
                    child.next_label = _add(child.next_label, source + value)
        return touched

    def _child(self, node: _Prefix, label: int) -> _Prefix | None:
        """Make the prefix one label longer; None where the word list forbids it."""
        child: _Prefix | None
        if label != self.alphabet.delimiter_id:
            below = None if node.spelling is None else node.spelling.get(label)
            allowed = self.spelling is None or below is not None
            child = _Prefix(node, label, below) if allowed else None
        elif node.spelling is not None and _COMPLETE not in node.spelling:
            child = None
        else:
            child = _Prefix(node, label, self.spelling)
            child.bonus, child.context = self._with_word(node)
        node.children[label] = child
        return child

    def _with_word(self, node: _Prefix) -> tuple[float, Gram]:
        """Return the bonus and context once the word that `node` ends in is complete."""
        bonus, context = node.bonus + self.beta, node.context
        if self.language_model:
            word = self._last_word(node)
            log_prob, context = self.language_model.step(node.context, word)
            bonus += self.alpha * max(log_prob, _UNSEEN)
        return bonus, context

    def _last_word(self, node: _Prefix) -> str:
        reverse: list[int] = []
        while node.parent is not None and node.label != self.alphabet.delimiter_id:
            reverse.append(node.label)
            node = node.parent
        return self.alphabet.decode(reverse[::-1], collapse=False)

    def _prune(self, touched: list[_Prefix]) -> list[_Prefix]:
        for node in touched:
            node.on_blank, node.on_label = node.next_blank, node.next_label
            node.next_blank = node.next_label = _NEVER
        if len(touched) <= self.beam_size:
            return touched
        touched.sort(key=lambda node: -(_add(node.on_blank, node.on_label) + node.bonus))
        return touched[: self.beam_size]

    def _finish(self, beam: Sequence[_Prefix]) -> list[Beam]:
        found: dict[tuple[int, ...], Beam] = {}
        for node in beam:
            log_prob = _add(node.on_blank, node.on_label)
            bonus, context, complete, last = node.bonus, node.context, True, node
            if node.label == self.alphabet.delimiter_id:
                last = node.parent or node
            else:
                complete = node.spelling is None or _COMPLETE in node.spelling
                bonus, context = self._with_word(node)
            if self.language_model:
                bonus += self.alpha * max(self.language_model.finish(context), _UNSEEN)
            labels = last.labels()
            if labels in found:
                log_prob = _add(log_prob, found[labels].log_prob)
            found[labels] = Beam(labels, log_prob + bonus, log_prob, complete)
        # Equal scores are ordered by spelling, so that the answer never hangs on the order of work.
        return sorted(found.values(), key=lambda one: (not one.complete, -one.score, one.labels))


def _add(first: float, second: float) -> float:
    """Add two probabilities given by their natural logarithms."""
    if first < second:
        first, second = second, first
    if second == _NEVER:
        return first
    return first + math.log1p(math.exp(second - first))


def _touch(node: _Prefix, frame: int, touched: list[_Prefix]) -> None:
    if node.stamp != frame:
        node.stamp = frame
        touched.append(node)


def _spelling_tree(alphabet: Alphabet, words: Iterable[str]) -> Spelling:
    tree: Spelling = {}
    for word in words:
        missing = alphabet.missing(word)
        if missing:
            raise DataError(f"the alphabet cannot write {missing} of the listed word {word!r}.")
        node = tree
        for label in alphabet.encode(word):
            node = node.setdefault(label, {})
        node[_COMPLETE] = True
    return tree
