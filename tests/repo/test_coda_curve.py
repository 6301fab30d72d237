from __future__ import annotations

from pathlib import Path

import coda_curve
import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.core.files import read_json
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.adapted import Head, save_adapted
from speechadapt.text.alphabet import Alphabet
from tests import synthetic


def saved(base: Path, folder: Path, method: str, **config: object) -> list[str]:
    """Write an adapter with a head; return the words that name it."""
    encoder = load_encoder(base)
    torch.manual_seed(0)
    handle = attach(encoder, method, config=config)
    head = Head(Alphabet(("<pad>", "|", *"efghinoprtuw")))
    linear = torch.nn.Linear(encoder.dim, len(head.alphabet))
    save_adapted(folder, encoder, handle, linear, head, training={}, scores={})
    return [str(folder), "--model", str(base)]


def test_every_share_is_scored_and_the_trained_one_marked(tiny_folder, tmp_path: Path) -> None:
    synthetic.write_pack(tmp_path / "pack", ("tones",))
    words = saved(tiny_folder("w2v_bert"), tmp_path / "a", "coda", share=0.5, bottleneck=4)
    words += ["--data", str(tmp_path / "pack"), "--sets", "tones/dev", "--shares", "1", "0.5"]
    assert coda_curve.main([*words, "--output", str(tmp_path / "curve.json")]) == 0
    rows = read_json(tmp_path / "curve.json")["rows"]
    assert [(row["share"], row["trained"]) for row in rows] == [(1.0, False), (0.5, True)]
    assert {row["items"] for row in rows} == {2}
    assert rows[0]["wer"] != rows[1]["wer"]  # random weights write something else


def test_another_method_has_no_shares(
    tiny_folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.write_pack(tmp_path / "pack", ("tones",))
    words = saved(tiny_folder("w2v_bert"), tmp_path / "a", "lora")
    words += ["--data", str(tmp_path / "pack"), "--sets", "tones/dev"]
    assert coda_curve.main(words) == 2
    assert "needs one adapter of the method coda, got lora" in capsys.readouterr().err
