"""Choosing among the candidates of an utterance, or voting on every word of them.

Source: minimum Bayes risk over a list of candidates (Kumar and Byrne 2004); ROVER (Fiscus 1997):
candidates are aligned one after another into a row of slots, and each slot is voted on.
Differs: ROVER's alignment begins with the candidate nearest to all others and takes the rest in
order of that nearness, where the original takes them as they come.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.decoders.masked_diffusion.options import SELECTIONS, DiffusionOptions


@dataclass(frozen=True)
class Written:
    """One word of a candidate.

    Args:
        text: Its spelling.
        tokens: Its tokens.
        log_probs: Their natural log-probabilities.
    """

    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]

    @property
    def probability(self) -> float:
        """Mean probability of its tokens."""
        return sum(map(math.exp, self.log_probs)) / len(self.log_probs)

    @property
    def key(self) -> str:
        """What two words must share to be the same."""
        return self.text.casefold()


@dataclass(frozen=True)
class Candidate:
    """One text of an utterance.

    Args:
        words: Its words.
        end_log_prob: Natural log-probability of its end; None where it ran out of positions.
    """

    words: tuple[Written, ...]
    end_log_prob: float | None

    @property
    def confidence(self) -> float:
        """Mean probability of its tokens, the end counted as one; 0 where there is none."""
        chances = [math.exp(one) for one in self.log_probs]
        return sum(chances) / len(chances) if chances else 0.0

    @property
    def log_probs(self) -> list[float]:
        """Natural log-probabilities of its tokens and of its end."""
        own = [one for word in self.words for one in word.log_probs]
        return own if self.end_log_prob is None else [*own, self.end_log_prob]

    @property
    def keys(self) -> tuple[str, ...]:
        """Its words, as they are compared."""
        return tuple(word.key for word in self.words)

    @property
    def text(self) -> str:
        """Its spelling."""
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class Choice:
    """What became of an utterance's candidates.

    Args:
        words: The words kept.
        best: The candidate they were taken from, or the one the vote began with.
        disagreement: Mean share of words in which two candidates differ, 0 to 1.
    """

    words: tuple[Written, ...]
    best: int
    disagreement: float


def select(candidates: Sequence[Candidate], options: DiffusionOptions) -> Choice:
    """Choose among the candidates of one utterance; the first of equals is taken.

    Args:
        candidates: At least one.
        options: How to choose.

    Raises:
        ConfigError: There is no such way to choose.
    """
    keys = [one.keys for one in candidates]
    risks = expected_errors(keys)
    sure = [one.confidence for one in candidates]
    scores: dict[str, list[tuple[float, float]]] = {
        "confidence": [(one, 0.0) for one in sure],
        "mbr": [(-risk, one) for risk, one in zip(risks, sure, strict=True)],
        "mbr+confidence": [
            (one - options.mbr_weight * risk, 0.0) for risk, one in zip(risks, sure, strict=True)
        ],
    }
    scores["rover"] = scores["mbr"]
    if options.select not in scores:
        known = near_misses(options.select, SELECTIONS)
        raise ConfigError(f"select knows no '{options.select}'.{known}")
    ranking = sorted(
        range(len(candidates)), key=lambda row: scores[options.select][row], reverse=True
    )
    best = ranking[0]
    words = candidates[best].words
    if options.select == "rover":
        words = vote(
            align([candidates[row] for row in ranking]),
            len(candidates),
            options.vote_share,
            options.null_confidence,
        )
    return Choice(words, best, disagreement(keys))


def expected_errors(texts: Sequence[Sequence[str]]) -> list[float]:
    """Return the mean word error rate of each text against every other one as its reference.

    Args:
        texts: Words of each text. A text alone has no errors.
    """
    count = len(texts)
    if count == 1:
        return [0.0]
    total = [0.0] * count
    for first in range(count):
        for second in range(first + 1, count):
            edits = Levenshtein.distance(texts[first], texts[second])
            total[first] += edits / max(1, len(texts[second]))
            total[second] += edits / max(1, len(texts[first]))
    return [each / (count - 1) for each in total]


def disagreement(texts: Sequence[Sequence[str]]) -> float:
    """Return the mean share of words in which two texts differ; 0 where there is one text.

    Args:
        texts: Words of each text.
    """
    shares = [
        Levenshtein.distance(first, second) / max(1, len(first), len(second))
        for at, first in enumerate(texts)
        for second in texts[at + 1 :]
    ]
    return sum(shares) / len(shares) if shares else 0.0


@dataclass(frozen=True)
class Slot:
    """A place of the aligned texts.

    Args:
        words: The words written there; a text that has none there has no entry.
    """

    words: tuple[Written, ...]

    def holds(self, key: str) -> bool:
        """Tell whether some text has that word there."""
        return any(word.key == key for word in self.words)


def align(candidates: Sequence[Candidate]) -> list[Slot]:
    """Lay candidates over one another, each at least cost against the slots of those before it.

    A word in a slot that holds it costs nothing; another word there, a slot passed over and a new
    slot cost 1 each; a slot that some earlier text passed over is passed over for nothing.

    Args:
        candidates: In the order in which they are laid.
    """
    slots: list[Slot] = []
    for laid, candidate in enumerate(candidates):
        slots = _lay(slots, candidate.words, laid)
    return slots


def vote(
    slots: Sequence[Slot], voters: int, share: float, null_confidence: float
) -> tuple[Written, ...]:
    """Take the best word of each slot, or none where that is better.

    The score of a word is `share * votes / voters + (1 - share) * confidence`, its confidence being
    the highest with which anyone wrote it; no word has the confidence `null_confidence`.

    Args:
        slots: Aligned texts.
        voters: How many texts there are.
        share: Weight of the votes.
        null_confidence: Confidence of no word.
    """
    kept: list[Written] = []
    for slot in slots:
        silent = (voters - len(slot.words)) / voters
        best, score = None, share * silent + (1 - share) * null_confidence
        if silent == 0.0:
            score = -1.0
        for word in slot.words:
            same = [one.probability for one in slot.words if one.key == word.key]
            found = share * len(same) / voters + (1 - share) * max(same)
            if found > score:
                best, score = word, found
        if best is not None:
            kept.append(best)
    return tuple(kept)


def _lay(slots: list[Slot], words: Sequence[Written], laid: int) -> list[Slot]:
    """Lay one more text over `laid` earlier ones."""
    if laid == 0:
        return [Slot((word,)) for word in words]
    rows, columns = len(slots), len(words)
    skip = [0.0 if len(slot.words) < laid else 1.0 for slot in slots]
    cost = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    move = [[""] * (columns + 1) for _ in range(rows + 1)]
    for row in range(rows + 1):
        for column in range(columns + 1):
            ways: list[tuple[float, str]] = []
            if row and column:
                same = slots[row - 1].holds(words[column - 1].key)
                ways.append((cost[row - 1][column - 1] + (0.0 if same else 1.0), "join"))
            if row:
                ways.append((cost[row - 1][column] + skip[row - 1], "pass"))
            if column:
                ways.append((cost[row][column - 1] + 1.0, "new"))
            if ways:
                cost[row][column], move[row][column] = min(ways, key=lambda way: way[0])
    result: list[Slot] = []
    row, column = rows, columns
    while row or column:
        way = move[row][column]
        row -= way in ("join", "pass")
        column -= way in ("join", "new")
        if way == "join":
            result.append(Slot((*slots[row].words, words[column])))
        else:
            result.append(slots[row] if way == "pass" else Slot((words[column],)))
    return result[::-1]
