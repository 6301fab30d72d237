"""Training batches as a pure function of (seed, step): nothing to save, nothing to replay.

A batch is drawn, not walked through: an anchor utterance is drawn by corpus weight, and the batch
is filled with draws from utterances of about its length, so little is padded. A share of the
batches instead holds rows joined from several short utterances (connected speech).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.core.limits import (
    Count,
    NotNegative,
    NotNegativeInterval,
    Positive,
    PositiveInterval,
    Probability,
    Range,
)
from speechadapt.core.seed import generator
from speechadapt.data.manifest import Utterance


@dataclass(frozen=True)
class BatchConfig:
    """Size and mix of the batches.

    Args:
        batch_s: Seconds of speech in a batch, padding included.
        max_rows: Most rows in a batch.
        max_s: Longest utterance used; longer ones are left out.
        weights: Share of draws by corpus; empty means in proportion to the seconds of each.
        join_prob: Share of batches whose rows are joined utterances, once `join_ramp` is over.
        join_ramp: First step with joined rows and the step at which their share is full.
        join_s: Shortest and longest target length of joined rows in seconds.
        join_gap_s: Shortest and longest silence between joined utterances in seconds.
        join_corpora: Corpora whose utterances are joined; empty means all.
        same_speaker_prob: Share of joined rows that keep to one speaker.
        spread: Longest over shortest utterance of a batch without joined rows.
    """

    batch_s: Positive = 120.0
    max_rows: Count = 128
    max_s: Positive = 16.0
    weights: Mapping[str, NotNegative] = field(default_factory=dict)
    join_prob: Probability = 0.0
    join_ramp: Annotated[tuple[int, int], Range(0.0)] = (0, 1)
    join_s: PositiveInterval = (1.5, 8.0)
    join_gap_s: NotNegativeInterval = (0.0, 0.25)
    join_corpora: tuple[str, ...] = ()
    same_speaker_prob: Probability = 0.7
    spread: Annotated[float, Range(1.0)] = 1.4


@dataclass(frozen=True)
class Row:
    """One row of a batch.

    Args:
        parts: Indices of the utterances, joined in this order.
        gaps_s: Silence after each part but the last, in seconds.
        seed: Parts that make the row's own random stream.
    """

    parts: tuple[int, ...]
    gaps_s: tuple[float, ...]
    seed: tuple[int | str, ...]


class BatchPlan:
    """Draws the rows of any step.

    Args:
        utterances: The training set; `extra["corpus"]` names each one's corpus.
        config: Size and mix.
        seed: Of the whole run.

    Raises:
        ConfigError: No utterance is left, or a weight names a corpus that is not there.
    """

    def __init__(self, utterances: Sequence[Utterance], config: BatchConfig, seed: int) -> None:
        self.utterances = list(utterances)
        self.config = config
        self.seed = seed
        self._seconds = np.array([item.duration or 0.0 for item in self.utterances])
        self._corpus = [str(item.extra.get("corpus", "")) for item in self.utterances]
        self._draw_prob = self._probabilities()
        kept = np.flatnonzero(self._draw_prob > 0)
        self._by_length = kept[np.argsort(self._seconds[kept], kind="stable")]
        self._join_pool, self._by_speaker = self._join_sets(kept)

    def rows(self, step: int, rank: int = 0) -> list[Row]:
        """Return the rows of one step on one process.

        Args:
            step: Training step, from 0.
            rank: Process number; each process draws its own rows.
        """
        random = generator(self.seed, "batch", step, rank)
        if len(self._join_pool) and random.random() < self._join_share(step):
            parts = self._joined(random)
        else:
            parts = [((index,), ()) for index in self._plain(random)]
        return [
            Row(indices, gaps, (self.seed, "row", step, rank, number))
            for number, (indices, gaps) in enumerate(parts)
        ]

    def seconds(self, row: Row) -> float:
        """Return the row's length in seconds, gaps included."""
        return float(self._seconds[list(row.parts)].sum()) + sum(row.gaps_s)

    def text(self, row: Row) -> str:
        """Return the row's transcript, parts joined by a space."""
        return " ".join(self.utterances[index].text or "" for index in row.parts)

    def _probabilities(self) -> np.ndarray:
        config = self.config
        present = set(self._corpus)
        for name in config.weights:
            if name not in present:
                raise ConfigError(
                    f"batch.weights names '{name}', which is not loaded."
                    f"{near_misses(name, present)}"
                )
        usable = (self._seconds > 0) & (self._seconds <= config.max_s)
        total: defaultdict[str, float] = defaultdict(float)
        for name, seconds, good in zip(self._corpus, self._seconds, usable, strict=True):
            total[name] += float(seconds) if good else 0.0
        share = dict(config.weights) or dict(total)
        count = Counter(name for name, good in zip(self._corpus, usable, strict=True) if good)
        chance = np.array(
            [
                share.get(name, 0.0) / count[name] if good else 0.0
                for name, good in zip(self._corpus, usable, strict=True)
            ]
        )
        if not chance.sum() > 0:
            raise ConfigError(
                f"no training utterance is left: {len(self.utterances)} loaded, "
                f"none between 0 and {config.max_s:g} s with a weight above 0."
            )
        return np.asarray(chance / chance.sum())

    def _join_sets(self, kept: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        wanted = set(self.config.join_corpora) or set(self._corpus)
        short = self.config.join_s[1] / 2
        pool = [
            int(index)
            for index in kept
            if self._corpus[index] in wanted and self._seconds[index] <= short
        ]
        speakers: dict[str, list[int]] = defaultdict(list)
        for index in pool:
            speakers[self.utterances[index].speaker or ""].append(index)
        return np.array(pool, dtype=int), {
            name: np.array(indices, dtype=int) for name, indices in speakers.items()
        }

    def _join_share(self, step: int) -> float:
        first, full = self.config.join_ramp
        if step < first:
            return 0.0
        return self.config.join_prob * min(1.0, (step - first + 1) / max(1, full - first))

    def _plain(self, random: np.random.Generator) -> list[int]:
        anchor = int(random.choice(len(self.utterances), p=self._draw_prob))
        members = self._neighbours(float(self._seconds[anchor]))
        longest = float(self._seconds[members].max())
        count = max(1, min(self.config.max_rows, int(self.config.batch_s / longest)))
        chance = self._draw_prob[members] / self._draw_prob[members].sum()
        repeat = count > len(members)
        drawn = random.choice(members, size=count, replace=repeat, p=chance)
        return [int(index) for index in drawn]

    def _neighbours(self, seconds: float) -> np.ndarray:
        reach = self.config.spread**0.5
        ordered = self._seconds[self._by_length]
        first = int(np.searchsorted(ordered, seconds / reach, "left"))
        last = int(np.searchsorted(ordered, seconds * reach, "right"))
        return np.asarray(self._by_length[first:last])

    def _joined(
        self, random: np.random.Generator
    ) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        low, high = self.config.join_s
        target = float(random.uniform(low, high))
        count = max(1, min(self.config.max_rows, int(self.config.batch_s / target)))
        return [self._join_one(target, random) for _ in range(count)]

    def _join_one(
        self, target: float, random: np.random.Generator
    ) -> tuple[tuple[int, ...], tuple[float, ...]]:
        chance = self._draw_prob[self._join_pool]
        first = int(random.choice(self._join_pool, p=chance / chance.sum()))
        pool = self._join_pool
        if random.random() < self.config.same_speaker_prob:
            pool = self._by_speaker[self.utterances[first].speaker or ""]
        parts, gaps = [first], list[float]()
        total = float(self._seconds[first])
        chance = self._draw_prob[pool] / self._draw_prob[pool].sum()
        while True:
            gap = float(random.uniform(*self.config.join_gap_s))
            following = int(random.choice(pool, p=chance))
            total += gap + float(self._seconds[following])
            if total > target:
                return tuple(parts), tuple(gaps)
            parts.append(following)
            gaps.append(gap)
