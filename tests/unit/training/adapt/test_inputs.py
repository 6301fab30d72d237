"""Inputs that come again, and those that cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from speechadapt.audio.augment import AugmentConfig
from speechadapt.data.batch import BatchConfig
from speechadapt.training.adapt.features import FeatureMaker
from speechadapt.training.adapt.inputs import (
    AdaptInputs,
    RepeatConfig,
    Unit,
    batch_key,
    repeat_problems,
    row_keys,
    unit_of,
)
from speechadapt.training.adapt.text import letters_of
from speechadapt.training.speech import DataConfig, SpeechBatches
from tests import synthetic
from tests.tiny_tasks import PLAIN

BATCH = BatchConfig(batch_s=3.0, max_rows=3)


class Sizes(FeatureMaker):
    """Gives the signals themselves in place of features."""

    def __init__(self) -> None:
        pass

    def __call__(self, rows, step):  # type: ignore[no-untyped-def]
        """Return padded signals and their lengths."""
        signals = [torch.from_numpy(row.signal) for row in rows]
        lengths = torch.tensor([len(one) for one in signals])
        return torch.nn.utils.rnn.pad_sequence(signals, batch_first=True), lengths


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> SpeechBatches:
    """Return batches of made tones, augmented."""
    root = synthetic.write_pack(tmp_path_factory.mktemp("made") / "pack", ("tones",))
    data = DataConfig(root=str(root), train=("tones",))
    return SpeechBatches(data, BATCH, AugmentConfig(), seed=3)


def inputs(
    speech: SpeechBatches, repeat: RepeatConfig, unit: Unit | None, seed: int = 3
) -> AdaptInputs:
    """Return what builds batches of signals."""
    alphabet = letters_of(item.text or "" for item in speech.utterances)
    return AdaptInputs(speech, Sizes(), alphabet, repeat, unit, seed)


def never(key: str) -> bool:
    """Keep nothing."""
    return False


def test_without_repetition_every_step_is_new(speech: SpeechBatches) -> None:
    made = inputs(speech, RepeatConfig(), None)
    first, again, second = (made.batch(step, 0, never) for step in (0, 0, 1))
    assert set(first) == {"features", "lengths", "labels", "label_lengths"}
    assert torch.equal(first["features"], again["features"])
    assert first["features"].shape != second["features"].shape or not torch.equal(
        first["features"], second["features"]
    )


def test_batches_come_again_in_turn_and_differ_by_process(speech: SpeechBatches) -> None:
    made = inputs(speech, RepeatConfig(batches=3), "batch")
    batches = [made.batch(step, 0, never) for step in range(5)]
    assert [batch_key(batch["key"]) for batch in batches] == [
        f"batch-0-{step % 3}" for step in range(5)
    ]
    assert torch.equal(batches[0]["features"], batches[3]["features"])
    assert torch.equal(batches[1]["labels"], batches[4]["labels"])
    assert batch_key(made.batch(4, 1, never)["key"]) == "batch-1-1"
    kept = made.batch(3, 0, lambda key: key == "batch-0-0")
    assert set(kept) == {"key", "labels", "label_lengths"}
    assert torch.equal(kept["labels"], batches[0]["labels"])


def test_an_utterance_has_so_many_variants_whatever_the_seed(speech: SpeechBatches) -> None:
    found: dict[str, set[bytes]] = {}
    for seed in (3, 4):
        made = inputs(speech, RepeatConfig(variants=2), "row", seed)
        for step in range(20):
            batch = made.batch(step, 0, never)
            for number, key in enumerate(row_keys(batch["keys"])):
                signal = batch[f"features.{number}"].numpy().tobytes()
                found.setdefault(key, set()).add(signal)
    assert all(len(signals) == 1 for signals in found.values())
    assert {key.split("-")[2] for key in found} == {"0", "1"}
    assert len({signal for signals in found.values() for signal in signals}) == len(found) > 8


def test_rows_that_are_kept_are_not_read(speech: SpeechBatches) -> None:
    made = inputs(speech, RepeatConfig(variants=2), "row")
    names = row_keys(made.batch(0, 0, never)["keys"])
    batch = made.batch(0, 0, lambda key: key == names[1])
    assert "features.0" in batch
    assert "features.1" not in batch
    assert len(batch["features.0"]) == len(batch["lengths.0"]) == 1


def test_variants_without_a_cache_are_one_batch(speech: SpeechBatches) -> None:
    whole = inputs(speech, RepeatConfig(variants=2), None).batch(0, 0, never)
    rows = inputs(speech, RepeatConfig(variants=2), "row").batch(0, 0, never)
    for number, length in enumerate(whole["lengths"].tolist()):
        one = rows[f"features.{number}"][0]
        assert torch.equal(whole["features"][number, :length], one)


def test_what_comes_again_is_known() -> None:
    none, data, batch = RepeatConfig(), DataConfig(edge_s=0.0), BATCH
    assert unit_of(none, data, batch, PLAIN) == "row"
    assert unit_of(none, replace(data, edge_s=0.1), batch, PLAIN) is None
    assert unit_of(none, data, replace(batch, join_prob=0.1), PLAIN) is None
    assert unit_of(none, data, batch, AugmentConfig()) is None
    assert unit_of(RepeatConfig(batches=2), data, batch, AugmentConfig()) == "batch"
    assert unit_of(RepeatConfig(variants=2), data, batch, AugmentConfig()) == "row"


def test_settings_that_exclude_repetition_are_named() -> None:
    assert RepeatConfig().problems() == []
    (both,) = RepeatConfig(2, 2).problems()
    assert "Give one of the two" in both
    late = AugmentConfig(mask_from_step=100)
    assert repeat_problems(RepeatConfig(), BATCH, late) == []
    (masks,) = repeat_problems(RepeatConfig(batches=2), BATCH, late)
    assert "Set augment.mask_from_step=0" in masks
    joined = replace(BATCH, join_prob=0.5)
    (joins,) = repeat_problems(RepeatConfig(variants=2), joined, AugmentConfig())
    assert "Set batch.join_prob=0" in joins
    assert repeat_problems(RepeatConfig(batches=2), joined, AugmentConfig()) == []
