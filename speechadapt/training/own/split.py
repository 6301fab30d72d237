"""Dividing one's own recordings into training, choosing the best step, and the score at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from speechadapt.core.errors import DataError
from speechadapt.core.limits import Probability
from speechadapt.data.manifest import Utterance
from speechadapt.data.split import Held, hold_out, seconds_of, speakers_of

_LITTLE_S = 1800.0
_SHARES = (0.15, 0.1)
_MOST_TEST_S = 1200.0
_MOST_DEV_S = 600.0
_MOST_OF_ALL = 0.25


@dataclass(frozen=True)
class SplitConfig:
    """What is held out.

    Args:
        test: Share of the audio that is scored before and after; None takes 0.15 of less than half
            an hour and 0.1 of more, 20 minutes at most.
        dev: Share that chooses the best step; None as `test`, 10 minutes at most.
        by: Whole speakers, where they are known, or single recordings.
        speakers: Who speaks: as the manifest says, or the first folder of a recording's path.
    """

    test: Probability | None = None
    dev: Probability | None = None
    by: Literal["speaker", "recording"] = "speaker"
    speakers: Literal["given", "folder"] = "given"


@dataclass(frozen=True)
class Parts:
    """Recordings by use; none is in two parts.

    Args:
        train: What is learnt.
        dev: What chooses the best step.
        test: What is scored before and after, and looked at for nothing else.
        by: How `test` was parted from the rest: by `speaker`, by `recording`, or as `given`.
    """

    train: tuple[Utterance, ...]
    dev: tuple[Utterance, ...]
    test: tuple[Utterance, ...]
    by: Literal["speaker", "recording", "given"]

    def named(self) -> dict[str, tuple[Utterance, ...]]:
        """Return the parts by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    @property
    def new_speakers(self) -> bool:
        """Whether nobody who speaks in `test` speaks in the other parts."""
        others = speakers_of((*self.train, *self.dev))
        own = speakers_of(self.test)
        return others is not None and own is not None and not others & own


def divide(rows: Sequence[Utterance], config: SplitConfig) -> Parts:
    """Divide rows; the same rows always in the same way.

    Args:
        rows: Usable rows of known length; `extra["split"]` where the manifest names one.
        config: What is held out.

    Raises:
        DataError: There are fewer than three rows, or some name a split and others none, or none
            is left to train on.
    """
    named = [row for row in rows if "split" in row.extra]
    if named and len(named) < len(rows):
        raise DataError(
            f"{len(rows) - len(named)} of {len(rows)} rows name no split, the others do. "
            "Give every row a split (train, dev, test), or none."
        )
    if len(rows) < 3:
        raise DataError(
            f"{len(rows)} usable rows were found; at least three are needed, one to train on, one "
            "to choose the best step and one to score."
        )
    share = _SHARES[seconds_of(rows) >= _LITTLE_S]
    if named:
        return _given(rows, config, share)
    tested = _test(rows, config, share)
    rest = _dev(tested.kept, seconds_of(rows), config, share)
    return Parts(rest.kept, rest.held, tested.held, tested.by)


def _given(rows: Sequence[Utterance], config: SplitConfig, share: float) -> Parts:
    parts = {
        name: tuple(row for row in rows if row.extra["split"] == name)
        for name in ("train", "dev", "test")
    }
    if len(parts["train"]) < 2:
        raise DataError(
            f"{len(parts['train'])} of {len(rows)} usable rows are of the split 'train'; "
            "at least two are needed."
        )
    train, dev, test = parts["train"], parts["dev"], parts["test"]
    if not test and dev:
        dev, test = (), dev
    by: Literal["speaker", "recording", "given"] = "given"
    if not test:
        tested = _test(train, config, share)
        train, test, by = tested.kept, tested.held, tested.by
    if not dev:
        rest = _dev(train, seconds_of(rows), config, share)
        train, dev = rest.kept, rest.held
    return Parts(train, dev, test, by)


def _test(rows: Sequence[Utterance], config: SplitConfig, share: float) -> Held:
    total = seconds_of(rows)
    wanted = min(share * total, _MOST_TEST_S) if config.test is None else config.test * total
    most = max(1.5 * wanted, _MOST_OF_ALL * total)
    return hold_out(rows, wanted, most, by_speaker=config.by == "speaker")


def _dev(rows: Sequence[Utterance], total: float, config: SplitConfig, share: float) -> Held:
    wanted = min(share * total, _MOST_DEV_S) if config.dev is None else config.dev * total
    if len(rows) < 2:
        raise DataError("one row is left to train on and to choose the best step; two are needed.")
    return hold_out(rows, wanted, 1.5 * wanted, by_speaker=config.by == "speaker")
