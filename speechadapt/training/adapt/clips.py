"""Labelled clips for a classifier: folds, a share to choose on, and few-shot subsets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from speechadapt.core.errors import ConfigError
from speechadapt.core.limits import CountOrNone, Probability
from speechadapt.core.seed import derive_seed
from speechadapt.data.corpora import pack
from speechadapt.data.manifest import Utterance
from speechadapt.training.speech import DataConfig, data_root


@dataclass(frozen=True)
class ClipsConfig:
    """Which of the labelled clips are for what.

    Args:
        fold: The fold that is held out in cross-validation, whatever split its rows stand in; the
            other folds are trained on. 0 trains on the `train` split and tests on `test`.
        dev_share: Share of each class of what is trained on that serves to choose, by a hash of
            the ids.
        shots: Clips per class that are trained on; 0 takes all.
    """

    fold: CountOrNone = 0
    dev_share: Probability = 0.2
    shots: CountOrNone = 0


@dataclass(frozen=True)
class Clips:
    """Labelled clips by what they are for, each list in the manifest's order.

    Args:
        train: Trained on.
        dev: Chosen on.
        test: Reported on.
    """

    train: list[Utterance]
    dev: list[Utterance]
    test: list[Utterance]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that are trained on, sorted."""
        return tuple(sorted({label_of(item) for item in self.train}))


def label_of(item: Utterance) -> str:
    """Return a clip's class."""
    return str(item.extra["label"])


def split_clips(data: DataConfig, config: ClipsConfig) -> Clips:
    """Read the clips of a run: the labelled corpora that `data.train` names.

    A class's clips are ordered by a hash of their ids: the first of them are for dev, the next ones
    are the shots, so fewer shots are a subset of more.

    Args:
        data: The corpora and where they are.
        config: What is for what.

    Raises:
        ConfigError: Rows have no labels, there is no such fold, or a class is left without a clip.
        DataError: A corpus is not there.
    """
    names = ", ".join(data.train)
    rows = [item for name in data.train for item in pack.load_corpus(data_root(data), name)]
    if not rows or not all(item.extra.get("label") for item in rows):
        raise ConfigError(f"the rows of '{names}' have no label to learn.")
    if config.fold:
        folds = sorted({int(item.extra["fold"]) for item in rows if item.extra.get("fold")})
        if config.fold not in folds:
            raise ConfigError(f"fold={config.fold} was asked for; {names} has {folds}.")
        kept = [item for item in rows if item.extra.get("fold") != config.fold]
        test = [item for item in rows if item.extra.get("fold") == config.fold]
    else:
        kept = [item for item in rows if item.extra["split"] == "train"]
        test = [item for item in rows if item.extra["split"] == "test"]
    train, dev = _train_and_dev(kept, config)
    return Clips(train, dev, test)


def _train_and_dev(
    rows: Sequence[Utterance], config: ClipsConfig
) -> tuple[list[Utterance], list[Utterance]]:
    classes: dict[str, list[Utterance]] = defaultdict(list)
    for item in rows:
        classes[label_of(item)].append(item)
    chosen: dict[str, set[str]] = {"train": set(), "dev": set()}
    for label, items in classes.items():
        drawn = sorted(items, key=lambda item: derive_seed("clips", item.id))
        held = round(config.dev_share * len(drawn))
        kept = drawn[held : held + config.shots] if config.shots else drawn[held:]
        if len(kept) < max(1, config.shots):
            raise ConfigError(
                f"class '{label}' has {len(drawn)} clips; dev_share={config.dev_share:g} and "
                f"shots={config.shots} leave {len(kept)} to train on."
            )
        chosen["dev"] |= {item.id for item in drawn[:held]}
        chosen["train"] |= {item.id for item in kept}
    train, dev = ([item for item in rows if item.id in chosen[name]] for name in ("train", "dev"))
    return train, dev
