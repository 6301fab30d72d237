from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechadapt.audio.augment import AugmentConfig
from speechadapt.core.errors import ConfigError, DataError
from speechadapt.core.files import hash_bytes
from speechadapt.data.batch import BatchConfig
from speechadapt.training.speech import (
    DataConfig,
    SpeechBatches,
    data_root,
    mix_problems,
    split_rows,
)
from tests import synthetic

IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from tests.unit.training.test_speech import digest, speech
print(digest(speech(Path(sys.argv[1])), 4))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a made pack."""
    return synthetic.write_pack(
        tmp_path_factory.mktemp("made") / "pack", ("tones", "chords"), ("hiss", "esc10"), ("room",)
    )


def speech(root: Path, seed: int = 1, **data: Any) -> SpeechBatches:
    """Return batches with every augmentation."""
    settings = {"train": ("tones", "chords"), "dev": ("tones",), "noise": ("hiss",)} | data
    config = DataConfig(root=str(root), responses=("room",), **settings)
    batch = BatchConfig(batch_s=4.0, max_rows=4, join_prob=0.5, join_s=(0.5, 1.5))
    augment = AugmentConfig(noise_prob=0.5, reverb_prob=0.5)
    return SpeechBatches(config, batch, augment, seed)


def digest(batches: SpeechBatches, step: int) -> str:
    """Hash the samples and texts of a step."""
    rows = batches.rows(step, 0)
    return hash_bytes(b"".join(row.signal.tobytes() + row.text.encode() for row in rows))


def test_signals_depend_on_seed_and_step_alone_in_any_process(root: Path) -> None:
    batches = speech(root)
    first = digest(batches, 4)
    digest(batches, 3)
    assert digest(batches, 4) == first
    assert digest(speech(root, seed=2), 4) != first
    environment = os.environ | {"PYTHONHASHSEED": "99", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, str(root)],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == first


def test_training_sees_train_splits_alone_and_names_all_it_sees(root: Path) -> None:
    batches = speech(root)
    assert len(batches.ids) == 16 + 2 + 1
    assert all("-train-" in name for name in batches.ids)
    assert list(batches.ids) == sorted(batches.ids)
    dev = batches.dev()
    assert {name: len(items) for name, items in dev.items()} == {"tones": 2}
    assert all(text and signal.dtype == np.float32 for signal, text in dev["tones"])


def test_labels_choose_among_the_noises_of_a_labelled_corpus(root: Path) -> None:
    wanted = speech(root, noise=("hiss", "esc10"), noise_labels=("rain",))
    others = speech(root, noise=("hiss", "esc10"), noise_labels=("sea_waves",))
    assert len(wanted.ids) == len(others.ids) + 2


def test_a_row_has_silence_at_its_edges_that_is_not_digital_zero(root: Path) -> None:
    batches = speech(root, edge_s=0.3)
    batches.augment = AugmentConfig(
        speed_prob=0.0, noise_prob=0.0, band_limit_prob=0.0, reverb_prob=0.0, gain_db=(0.0, 0.0)
    )
    rows = [row for step in range(6) for row in batches.rows(step, 0)]
    first = np.concatenate([row.signal[:20] for row in rows])
    assert np.abs(first).max() < 0.05
    assert np.mean(first != 0) > 0.9


def test_rows_can_be_required_to_have_a_value(root: Path) -> None:
    batches = speech(root, require={"checked": True})
    assert len(batches.utterances) == 16  # rows without the field pass


def test_noise_rows_have_the_length_asked_for(root: Path) -> None:
    batches = speech(root)
    lengths = {len(batches.noise_row(0.25, np.random.default_rng(seed))) for seed in range(9)}
    assert lengths == {4000}


def test_the_summary_counts_corpora_and_seconds(root: Path) -> None:
    summary = speech(root).summary()
    assert summary["train"].startswith("16 items, 0.1 min: chords 8 (0.1 min), tones 8")
    assert summary["responses"] == "1 items, 0.0 min: room 1 (0.0 min)"
    seconds = float(summary["a micro-step"].split()[0])
    assert 0.5 < seconds <= 4.0


def test_weights_and_joins_must_name_training_corpora() -> None:
    data = DataConfig(train=("tones",))
    batch = BatchConfig(weights={"tones": 1.0, "tunes": 1.0}, join_corpora=("chords",))
    first, second = mix_problems(data, batch)
    assert "batch.weights names 'tunes'" in first
    assert "Did you mean tones?" in first
    assert "batch.join_corpora names 'chords'" in second


def test_a_share_of_train_is_held_out_where_there_is_no_dev(tmp_path: Path) -> None:
    root = synthetic.write_pack(tmp_path / "pack", ("tones", "chords"))
    path = root / "manifests/chords.jsonl"
    lines = [line for line in path.read_text().splitlines() if '"dev"' not in line]
    path.write_text("".join(f"{line}\n" for line in lines))
    plain = DataConfig(root=str(root), train=("tones", "chords"), dev=("chords",))
    (problem,) = plain.problems()
    assert "corpus 'chords' has no split 'dev'" in problem
    config = replace(plain, held_out=0.4)
    assert config.problems() == []
    batches = SpeechBatches(config, BatchConfig(), AugmentConfig(), 1)
    again = SpeechBatches(config, BatchConfig(), AugmentConfig(), 2)
    held = {item.id for _, item in batches.dev_items()["chords"]}
    trained = {item.id for item in batches.utterances}
    assert held
    assert not held & trained
    assert len(held | trained) == 8 + 8
    assert len([name for name in trained if name.startswith("tones")]) == 8  # it has a dev split
    assert {item.id for item in again.utterances} == trained
    with pytest.raises(DataError, match="leaves no dev rows of the corpus 'chords'"):
        split_rows(root, "chords", "dev", 1e-9)


def test_texts_are_spelt_for_training_and_for_scoring(root: Path) -> None:
    config = DataConfig(root=str(root), train=("tones",), dev=("tones",))
    shout = SpeechBatches(
        config, BatchConfig(), AugmentConfig(), 1, spell=lambda item: f"{item.text}!".upper()
    )
    plain = SpeechBatches(config, BatchConfig(), AugmentConfig(), 1)
    assert [row.text for row in shout.rows(0, 0)] == [
        f"{row.text}!".upper() for row in plain.rows(0, 0)
    ]
    texts = [text for _, text in shout.dev()["tones"]]
    assert texts == [f"{text}!".upper() for _, text in plain.dev()["tones"]]


def test_data_without_a_root_or_corpora_is_explained(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"no data root: set data\.root=FOLDER"):
        data_root(DataConfig())
    monkeypatch.setenv("SPEECHADAPT_DATA", str(root))
    assert data_root(DataConfig()) == root
    assert DataConfig().problems() == ["data.train names no corpus; name at least one."]
    good = DataConfig(train=("tones",), dev=("tones",))
    assert good.problems() == []
    assert set(good.sources()) == {"manifests/tones.jsonl"}
    (problem,) = replace(good, dev=("tone",)).problems()
    assert problem == "data.dev: no corpus 'tone' under data.root. Did you mean tones?"


def test_rows_are_built_alike_for_an_objective(build: Callable[..., Any]) -> None:
    batch = build("ctc").batch(3, 0)
    again = build("ctc").batch(3, 0)
    assert all((batch[name] == again[name]).all() for name in batch)


def own_manifest(root: Path) -> Path:
    """Write the rows of the made tones as a person's own manifest, without splits."""
    lines = (root / "manifests/tones.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    own = [
        {"audio_filepath": str(root / row["audio"]), "text": row["text"], "id": row["id"]}
        for row in rows
    ]
    path = root / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in own))
    return path


def test_a_manifest_of_ones_own_stands_in_for_the_pack(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    config = DataConfig(manifest=str(own_manifest(root)), train=("nobody",), held_out=0.3)
    assert config.problems() == []
    assert config.corpora == ("mine",)
    assert list(config.sources()) == ["manifest"]
    batches = SpeechBatches(config, BatchConfig(batch_s=4.0), AugmentConfig(), 1)
    held = {item.id for _, item in batches.dev_items()["mine"]}
    trained = {item.id for item in batches.utterances}
    assert held
    assert not held & trained
    assert len(held | trained) == 10
    signals = batches.rows(0, 0)
    assert signals[0].text
    assert float(np.abs(signals[0].signal).max()) > 0.01
    assert not mix_problems(config, BatchConfig(weights={"mine": 1.0}))


def test_what_a_manifest_of_ones_own_lacks_is_said(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    config = DataConfig(manifest=str(own_manifest(root)), noise=("hiss",))
    first, second = config.problems()
    assert "set data.held_out=0.1" in first
    assert "no data root" in second
    assert second.endswith("Or set data.noise=[] data.responses=[].")
    (missing,) = DataConfig(manifest=str(root / "gone.jsonl")).problems()
    assert "gone.jsonl' cannot be read" in missing


def test_dev_recordings_without_a_transcript_are_kept_where_asked_for(tmp_path: Path) -> None:
    root = synthetic.write_pack(tmp_path / "pack", ("tones",))
    path = root / "manifests/tones.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["text"] = None if row["id"] == "tones-dev-001" else row["text"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(root=str(root), train=("tones",), dev=("tones",))
    batches = SpeechBatches(config, BatchConfig(), AugmentConfig(), 1)
    assert [item.id for _, item in batches.dev_items()["tones"]] == ["tones-dev-000"]
    assert len(batches.dev_items(transcribed=False)["tones"]) == 2


def test_a_signal_is_augmented_with_the_runs_own_noise(root: Path) -> None:
    batches = speech(root)
    silent = AugmentConfig(
        speed_prob=0.0, band_limit_prob=0.0, noise_prob=1.0, reverb_prob=0.0, gain_db=(0.0, 0.0)
    )
    signal = np.sin(np.arange(4000) / 9).astype(np.float32) / 2
    noisy = batches.augmented(signal, silent, np.random.default_rng(0))
    again = batches.augmented(signal, silent, np.random.default_rng(0))
    assert np.array_equal(noisy, again)
    assert len(noisy) == len(signal)
    assert float(np.abs(noisy - signal).max()) > 0.01
