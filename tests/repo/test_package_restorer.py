"""`tools/package_restorer.py`: a bundled restorer, what it was trained on, how it scores."""

from __future__ import annotations

import json
from pathlib import Path

import package_model
import package_restorer
import pytest
import torch

from speechadapt.adapters.handle import base_of
from speechadapt.encoders.tiny import write_tiny
from speechadapt.models.card import read_card, training_ids
from speechadapt.models.restorer_folder import load_restorer
from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import make_vocoder, save_vocoder

REPORT = {
    "items": 3,
    "scores": {
        "lsd_db": {
            "degraded": {"mean": 5.0, "low": 4.0, "high": 6.0, "missing": 1},
            "before": {"mean": 9.0, "low": 8.0, "high": 10.0, "missing": 0},
            "change": {"mean": -4.0, "low": -5.0, "high": -3.0, "missing": 1},
        },
        "pesq": {"degraded": {"mean": None, "low": None, "high": None, "missing": 3}},
        "level_db": {"degraded": {"mean": -20.0, "low": -21.0, "high": -19.0, "missing": 0}},
    },
}


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write two runs, their base and a score; return the command line."""
    base = write_tiny("w2v_bert", tmp_path / "base")
    torch.manual_seed(0)
    cleaner = make_cleaner(load_cut(base, 1), config={"bottleneck": 4})
    encoder = cleaner.encoder
    vocoder = make_vocoder(
        Speech(encoder.dim, encoder.frame_rate, 16000), IstftConfig(width=8, layers=1)
    )
    cleaner.save(tmp_path / "c" / "best")
    save_vocoder(vocoder, tmp_path / "v" / "last", {"base": base_of(encoder), "layer": 1})
    for folder, ids in (("c", "one\ntwo"), ("v", "two\nthree"), ("base", "four")):
        (tmp_path / folder / "training_ids.txt").write_text(ids)
    (tmp_path / "limits.txt").write_text("It is random.\n")
    (tmp_path / "mixtures.json").write_text(json.dumps(REPORT))
    monkeypatch.setattr(package_model, "PRETRAINED", tmp_path / "shelf")
    monkeypatch.setattr(package_model, "corpora", lambda root, ids: ())
    places = [str(tmp_path / place) for place in ("c", "v/last")]
    facts = ["--recipes", "a", "b", "--summary", "Tiny.", "--limits", str(tmp_path / "limits.txt")]
    more = ["--base", str(base), "--data", str(tmp_path)]
    return [*places, *facts, *more, "--scores", str(tmp_path / "mixtures.json")]


def test_a_bundled_restorer_stands_alone_with_its_card(words: list[str], tmp_path: Path) -> None:
    assert package_restorer.main(words) == 0
    folder = tmp_path / "shelf" / "mini-restorer"
    assert load_restorer(folder).sample_rate == 16000
    assert training_ids(folder) == {"one", "two", "three", "four"}
    card = read_card(folder)
    (score,) = card.scores
    assert (score.test_set, score.metric, score.value, score.items) == (
        "mixtures",
        "lsd_db",
        5.0,
        2,
    )
    assert score.note == "before 9.000; change -4.000 (-5.000 to -3.000)"
    assert "5.00 dB (4.00 to 6.00)" in (folder / "README.md").read_text()
    assert card.parameters > 1000


def test_what_is_too_large_is_not_left_there(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(package_restorer, "MOST_MB", 0.001)
    assert package_restorer.main(words) == 2
    assert "a bundled one may take 0.001" in capsys.readouterr().err
    assert not (tmp_path / "shelf" / "mini-restorer").exists()
