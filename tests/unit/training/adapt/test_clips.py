from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.training.adapt.clips import ClipsConfig, label_of, split_clips
from speechadapt.training.speech import DataConfig
from tests import synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    root = tmp_path_factory.mktemp("pack")
    synthetic.write_pack(root, ("tones",))
    synthetic.write_labelled(root, "sounds", classes=3, clips=5, folds=3)
    return DataConfig(root=str(root), train=("sounds",))


def test_a_held_out_fold_is_neither_trained_nor_chosen_on(data: DataConfig) -> None:
    for fold in (1, 2, 3):
        clips = split_clips(data, ClipsConfig(fold=fold))
        assert {item.extra["fold"] for item in clips.test} == {fold}
        assert fold not in {item.extra["fold"] for item in (*clips.train, *clips.dev)}
        ids = [item.id for items in vars(clips).values() for item in items]
        assert len(set(ids)) == len(ids) == 45


def test_without_a_fold_the_splits_hold(data: DataConfig) -> None:
    clips = split_clips(data, ClipsConfig())
    assert {item.extra["split"] for item in (*clips.train, *clips.dev)} == {"train"}
    assert {item.extra["split"] for item in clips.test} == {"test"}
    assert Counter(map(label_of, clips.dev)) == dict.fromkeys(clips.labels, 2)


def test_fewer_shots_are_a_subset_of_more(data: DataConfig) -> None:
    few, more = (split_clips(data, ClipsConfig(shots=count)) for count in (2, 4))
    assert Counter(map(label_of, few.train)) == dict.fromkeys(few.labels, 2)
    assert {item.id for item in few.train} < {item.id for item in more.train}
    assert few.dev == more.dev


def test_too_few_clips_for_the_shots_name_the_class(data: DataConfig) -> None:
    with pytest.raises(ConfigError, match=r"class '\w+' has 10 clips; .* leave 8 to train on"):
        split_clips(data, ClipsConfig(shots=9))


def test_a_corpus_without_labels_is_refused(data: DataConfig) -> None:
    with pytest.raises(ConfigError, match="the rows of 'tones' have no label to learn"):
        split_clips(replace(data, train=("tones",)), ClipsConfig())
