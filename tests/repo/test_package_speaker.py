"""`tools/package_speaker.py`: a bundled speaker model with its rates on its card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import package_model
import package_speaker
import pytest
import torch

from speechadapt.models.card import read_card, training_ids
from speechadapt.models.speaker import load_speaker_model
from speechadapt.training.xvector import XvectorConfig, new_xvector, save_xvector
from tests import synthetic


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write a run and a pack; return the command line."""
    run = tmp_path / "run"
    torch.manual_seed(0)
    shape = XvectorConfig(dim=8, channels=(8,), kernels=(3,), dilations=(1,), vector=4)
    save_xvector(new_xvector(shape, 2), 2, 2, run / "last")
    (run / "last" / "training.json").write_text('{"step": 7}')
    (run / "training_ids.txt").write_text("tones-train-000\n")
    synthetic.write_pack(tmp_path / "pack", ("tones",), ("noise",), ("rir",))
    monkeypatch.setattr(package_model, "PRETRAINED", tmp_path / "shelf")
    monkeypatch.setattr(package_model, "corpora", lambda root, ids: ())
    monkeypatch.setattr(package_speaker, "CORPORA", ("tones",))
    monkeypatch.setattr(package_speaker, "_PIECE_S", 0.1)
    return [str(run), "--data", str(tmp_path / "pack"), "--damage", "telephone"]


def test_a_bundled_speaker_model_has_its_rates_and_its_training_items(
    words: list[str], tmp_path: Path
) -> None:
    assert package_speaker.main(words) == 0
    folder = tmp_path / "shelf" / "mini-xvector"
    assert not (folder / "training.json").exists()
    assert training_ids(folder) == {"tones-train-000"}
    card = read_card(folder)
    assert [score.test_set for score in card.scores] == [
        "tones dev",
        "tones dev, degraded (telephone)",
    ]
    for score in card.scores:
        assert score.metric == "eer"
        assert 0.0 <= score.value <= 1.0
        assert "2 speakers" in score.note
    assert card.step == 7
    assert card.limits
    assert "EER" in (folder / "README.md").read_text()
    signal = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    assert len(load_speaker_model(folder).embed(signal)) == 4


def test_what_is_too_large_is_not_bundled(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(package_speaker, "MOST_MB", 0.0001)
    assert package_speaker.main(words) == 2
    assert "a bundled one may take 0.0001" in capsys.readouterr().err
    assert not (tmp_path / "shelf").exists()
