from __future__ import annotations

from pathlib import Path

import mixtures
import pytest
import soundfile
import torch

from speechadapt.adapters.attach import attach
from speechadapt.core.files import read_json
from speechadapt.data.manifest import read_manifest
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.adapted import Head, save_adapted
from speechadapt.text.alphabet import Alphabet
from tests import synthetic


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixtures of a made pack."""
    root = tmp_path_factory.mktemp("pack")
    synthetic.write_pack(root, ("people",), dev=4)
    folder = tmp_path_factory.mktemp("mixtures")
    words = [str(folder), "--data", str(root), "--corpora", "people"]
    assert mixtures.main(words) == 0
    return folder


def test_every_row_has_both_voices_and_their_enrolments(made: Path) -> None:
    rows = read_manifest(made / mixtures.MANIFEST)
    assert len(rows) == 4
    for row in rows:
        for path in (row.audio_filepath, row.extra["enrolment"], row.extra["other_enrolment"]):
            samples, rate = soundfile.read(made / path)
            assert rate == 16000
            assert bool(samples.any())
        assert row.extra["split"] == "dev"
        assert row.extra["other_text"]


def test_an_adapter_is_scored_told_swapped_and_untold(
    made: Path, tiny_folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    torch.manual_seed(0)
    handle = attach(encoder, "cross_attention", config={"width": 8, "token_width": 8})
    head = Head(Alphabet(("<pad>", "|", *"efghinoprtuw")))
    linear = torch.nn.Linear(encoder.dim, len(head.alphabet))
    save_adapted(tmp_path, encoder, handle, linear, head, training={}, scores={})
    words = ["--adapter", str(tmp_path), "--model", str(tiny_folder("w2v_bert"))]
    assert mixtures.main([str(made), *words]) == 0
    found = read_json(made / mixtures.SCORES)
    assert found["items"] == 4
    # the adapter is at its start, so whom it is told of makes no difference
    assert found["told"] == found["wrong"] == found["not_told"]
    assert found["random_pick"]["wer"] == found["told"]["wer"]
    assert "swapped" in capsys.readouterr().out
