"""How a masked-diffusion decoder writes: strategy, number of candidates, choice among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from speechadapt.core.errors import ConfigError, near_misses

STRATEGIES = ("pdd", "confidence", "ancestral", "semi_block")
SELECTIONS = ("confidence", "mbr", "rover", "mbr+confidence")
DIVERSITIES = ("none", "sample", "masks")
RATIOS = (1.0, 0.9, 0.85, 0.8)
LATER_RATIO = 0.7


@dataclass(frozen=True)
class DiffusionOptions:
    """How to decode.

    Args:
        strategy: `pdd` writes everything in every step and hides a random part anew; `confidence`
            settles the surest tokens first, `ancestral` random ones; `semi_block` does as
            `confidence` does, block by block from the left.
        num_candidates: Texts written for each utterance. Where nothing is random they would all be
            the same, so one is written.
        num_steps: Passes of the network, of each block for `semi_block`.
        select: The text kept: the surest (`confidence`), the nearest to all others (`mbr`), a vote
            on every word (`rover`), or both of the first (`mbr+confidence`).
        ratios: Share of the tokens hidden in each step of `pdd`, 0.7 in all later ones.
        temperature: Tokens are drawn at this temperature; 0 takes the likeliest.
        gumbel: Scale of the Gumbel noise on the order in which `confidence` settles tokens.
        diversity: What tells candidates apart in the first step: `none`, `sample` (its tokens are
            drawn, at temperature 1 where `temperature` is 0) or `masks` (each keeps other parts of
            the first guess).
        block_size: Tokens of a block of `semi_block`.
        length_head: Write as many tokens as the length head asks for; off, as many as there are
            positions. None: where the model has one.
        length_quantile: Probability with which the length head's number is to suffice.
        max_tokens: Most tokens written, the end counted; None means all positions.
        early_stop: Leave an utterance that a step did not change.
        ahead: Steps of `pdd` computed at once, from guesses reused of the step before, without
            leaving any early; an approximation. 1 computes them one after the other.
        mbr_weight: Weight of the expected word errors in `mbr+confidence`.
        vote_share: Weight in `rover` of the share of votes, against the words' confidence.
        null_confidence: Confidence in `rover` of writing no word.
        seed: Of everything random; equal seeds give equal texts in any batch.
        keep_candidates: Also report every candidate.
        word_timestamps: Place words by cross-attention.
        logprob_threshold: A text of a lower mean log-probability per token gets the flag
            `logprob`; None never does.
        compression_ratio_threshold: A text that compresses better gets the flag `compression`;
            None never does.
        disagreement_threshold: Where candidates differ from one another in more than this share of
            their words, the flag is `disagreement`; None never is.
    """

    strategy: str = "pdd"
    num_candidates: int = 15
    num_steps: int = 4
    select: str = "mbr"
    ratios: tuple[float, ...] = RATIOS
    temperature: float = 0.0
    gumbel: float = 0.0
    diversity: str = "none"
    block_size: int = 16
    length_head: bool | None = None
    length_quantile: float = 0.95
    max_tokens: int | None = None
    early_stop: bool = True
    ahead: int = 1
    mbr_weight: float = 0.5
    vote_share: float = 0.5
    null_confidence: float = 0.7
    seed: int = 0
    keep_candidates: bool = False
    word_timestamps: bool = False
    logprob_threshold: float | None = -1.0
    compression_ratio_threshold: float | None = 2.4
    disagreement_threshold: float | None = 0.5

    def __post_init__(self) -> None:
        problems = [problem for problem in self._problems() if problem]
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def is_random(self) -> bool:
        """Whether candidates can differ from one another."""
        if self.temperature > 0 or self.diversity != "none" or self.strategy == "ancestral":
            return True
        if self.strategy == "pdd":
            return self.num_steps > 1
        return self.gumbel > 0

    @property
    def candidates(self) -> int:
        """How many candidates are written."""
        return self.num_candidates if self.is_random else 1

    def ratio(self, step: int) -> float:
        """Return the share of tokens that `pdd` hides in a step, counted from 0."""
        return self.ratios[step] if step < len(self.ratios) else LATER_RATIO

    def _problems(self) -> list[str | None]:
        shares = ("length_quantile", "vote_share", "null_confidence")
        return [
            _one_of("strategy", self.strategy, STRATEGIES),
            _one_of("select", self.select, SELECTIONS),
            _one_of("diversity", self.diversity, DIVERSITIES),
            *(
                _at_least(self, name, 1)
                for name in ("num_candidates", "num_steps", "block_size", "ahead")
            ),
            *(_at_least(self, name, 0) for name in ("temperature", "gumbel", "mbr_weight")),
            None if self.max_tokens is None else _at_least(self, "max_tokens", 1),
            *(_share(name, getattr(self, name)) for name in shares),
            *(_share("ratios", ratio) for ratio in self.ratios),
            self._ahead_problem(),
            "length_quantile must be above 0 and below 1."
            if self.length_quantile in (0.0, 1.0)
            else None,
        ]

    def _ahead_problem(self) -> str | None:
        drawn = self.temperature > 0 or self.diversity == "sample"
        if self.ahead == 1 or (self.strategy == "pdd" and not drawn):
            return None
        return (
            f"ahead={self.ahead} was asked for; guesses are reused by strategy=pdd, without "
            "temperature and diversity=sample."
        )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str | None:
    return None if value in known else f"{name} knows no '{value}'.{near_misses(value, known)}"


def _at_least(options: DiffusionOptions, name: str, least: int) -> str | None:
    value: Any = getattr(options, name)
    return None if value >= least else f"{name} must be {least} or more, got {value:g}."


def _share(name: str, value: float) -> str | None:
    return None if 0 <= value <= 1 else f"{name} must be between 0 and 1, got {value:g}."
