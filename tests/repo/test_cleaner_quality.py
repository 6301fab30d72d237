"""`tools/cleaner_quality.py`: features against clean ones, and what is read in cleaned ones."""

from __future__ import annotations

import json
from pathlib import Path

import cleaner_quality
import numpy as np
import pytest
import restoration_cases
import torch

from speechadapt.models.build import find_model, load
from speechadapt.restoration.cleaner import Cleaner, load_cleaner, make_cleaner
from speechadapt.restoration.cut import load_cut
from tests import synthetic

BASE = "mini-usm"
CLIP = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cleaner of random weights on the first two layers."""
    torch.manual_seed(0)
    made = make_cleaner(load_cut(find_model(BASE), 2, name=BASE), config={"bottleneck": 4})
    for parameter in made.handle.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.save(tmp_path_factory.mktemp("cleaner") / "saved")


@pytest.fixture(scope="module")
def cleaner(folder: Path) -> Cleaner:
    return load_cleaner(folder, find_model(BASE))


def test_the_layers_above_hear_cleaned_features_and_afterwards_their_own(cleaner: Cleaner) -> None:
    recogniser = load(BASE)
    heard = []
    above = recogniser.encoder.model.encoder.layers[cleaner.layer]
    above.register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    own, _ = recogniser.encoder.encode([torch.from_numpy(CLIP)])
    undo = cleaner_quality.reads_cleaned(recogniser, cleaner)
    cleaned, _ = recogniser.encoder.encode([torch.from_numpy(CLIP)])
    undo()
    again, _ = recogniser.encoder.encode([torch.from_numpy(CLIP)])
    assert torch.equal(own, again)
    assert not torch.allclose(own, cleaned)
    torch.testing.assert_close(heard[1], cleaner.encode([torch.from_numpy(CLIP)])[0])


def test_gaps_are_sums_over_recordings(cleaner: Cleaner) -> None:
    case = restoration_cases.Case("a", "set", CLIP, CLIP, 16000, "one", "voice")
    gaps, sizes = cleaner_quality.feature_gaps(cleaner, [case])
    assert gaps["degraded"].errors == pytest.approx([0.0])
    assert gaps["cleaned"].errors[0] > 0
    assert gaps["clean"].variances == gaps["degraded"].variances
    assert sizes[0] > 0


def test_a_whole_run_scores_features_and_words(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoration_cases, "SPOKEN", {"dev": ("wake/dev",)})
    pack = synthetic.write_pack(tmp_path / "pack", ("wake",), ("noise",), ("rir",))
    words = ["--cleaner", str(folder), "--data", str(pack)]
    assert cleaner_quality.main([*words, "--output", str(tmp_path / "found.json")]) in (0, 1)
    found = json.loads((tmp_path / "found.json").read_text())
    assert [one["claim"] for one in found["figures"]] == ["cleaner_l1", "cleaner_words"]
    assert found["details"]["features"]["clean"]["relative_l1"] == 0
