"""`tools/eval_pack.py` on a small pack made of the shipped clips."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from speechadapt.decoders.base import Hypothesis

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "speechadapt" / "demo"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("eval_pack", ROOT / "tools" / "eval_pack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    import sys

    sys.modules["eval_pack"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    rows = [json.loads(line) for line in (DEMO / "manifest.jsonl").read_text().splitlines()]
    shutil.copytree(DEMO / "clips", tmp_path / "audio")
    (tmp_path / "manifests").mkdir()
    write_corpus(tmp_path, "orders", orders(rows))
    write_corpus(
        tmp_path,
        "connected",
        [
            pack_row(row, "test", lang=lang)
            for row, lang in zip(named(rows, "connected"), ("en", "ar"), strict=True)
        ],
    )
    return tmp_path


def orders(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    first, second = named(rows, "orders")
    return [
        pack_row(first, "test", open_grammar_agrees=True),
        pack_row(second, "test", open_grammar_agrees=False),
        pack_row(first, "train", id="orders-train", speaker="other"),
    ]


def named(rows: Iterable[dict[str, Any]], corpus: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["id"].startswith(corpus)]


def pack_row(row: dict[str, Any], split: str, **changes: Any) -> dict[str, Any]:
    audio = row["audio_filepath"].replace("clips/", "audio/")
    return row | {"audio": audio, "tar": "", "split": split} | changes


def write_corpus(root: Path, name: str, rows: Iterable[dict[str, Any]]) -> None:
    path = root / "manifests" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Echo:
    """Answers every clip with one text and keeps what it was given."""

    name = "echo"
    sample_rate = 16000
    window_s = 30.0
    language = "en"

    def __init__(self, text: str) -> None:
        self.text = text
        self.heard: list[int] = []

    def decode_batch(self, waveforms: Sequence[np.ndarray[Any, Any]]) -> list[Hypothesis]:
        self.heard += [len(waveform) for waveform in waveforms]
        assert all(waveform.dtype == np.float32 for waveform in waveforms)
        return [Hypothesis(self.text) for _ in waveforms]

    def fingerprint(self) -> dict[str, Any]:
        return {"weights": "echo", "dtype": "float32"}


def test_sets_keep_the_rows_they_promise(tool: ModuleType, pack: Path) -> None:
    sets = tool.SETS["test"]
    assert len(tool.read_set(pack, sets["orders"])) == 1
    assert [one.lang for one in tool.read_set(pack, sets["connected"])] == ["en"]


def test_every_set_of_the_tables_is_there(tool: ModuleType) -> None:
    assert {"fsdd/test_speaker", "fsdd/test", "connected", "orders"} <= set(tool.SETS["test"])
    assert not {one.split for one in tool.SETS["dev"].values()} & {"test", "test_speaker", "train"}
    assert "train" not in {one.split for one in tool.SETS["test"].values()}


def test_scores_are_those_of_the_texts_and_overlap_is_counted(tool: ModuleType, pack: Path) -> None:
    (utterance,) = tool.read_set(pack, tool.SETS["test"]["orders"])
    words = utterance.text.split()
    echo = Echo(" ".join(words[:-1]))
    scores, details = tool.evaluate(echo, pack, {"orders": tool.SETS["test"]["orders"]}, "verbatim")
    assert scores[0].score.words.deletions == scores[0].score.words.edits == 1
    assert scores[0].score.wer == pytest.approx(1 / len(words))
    assert echo.heard == [round(utterance.duration * 16000)]
    assert details["orders"]["texts_in_training"] == 1
    assert (details["orders"]["speakers"], details["orders"]["speakers_in_training"]) == (1, 0)


def test_a_real_recogniser_goes_through_and_the_json_holds_what_was_measured(
    tool: ModuleType,
    pack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from speechadapt.decoders.ctc.decoder import CtcDecoder
    from speechadapt.encoders.catalog import load_encoder
    from speechadapt.encoders.tiny import write_tiny
    from speechadapt.models import build
    from speechadapt.models.recogniser import Recogniser

    encoder = load_encoder(write_tiny("w2v_bert", tmp_path / "tiny"))
    tiny = Recogniser("tiny", encoder, CtcDecoder.tiny(encoder.dim), "en")
    monkeypatch.setattr(build, "load", lambda *_, **__: tiny)
    output = tmp_path / "scores.json"
    words = ["--model", "tiny", "--data", str(pack), "--split", "test", "--output", str(output)]
    assert tool.main([*words, "--sets", "orders", "connected"]) == 0
    printed = capsys.readouterr().out
    assert "| orders | 1 |" in printed
    assert "orders: 1 of 1 texts and 0 of 1 speakers also in training." in printed
    found = json.loads(output.read_text())
    assert found["fingerprint"] == tiny.fingerprint()
    assert [one["set"] for one in found["sets"]] == ["orders", "connected"]
    assert found["sets"][0]["wer_interval"]["level"] == 0.95
    assert str(tmp_path) not in output.read_text()


def test_a_wrong_set_names_a_near_one(
    tool: ModuleType, pack: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--model", "x", "--data", str(pack), "--sets", "order/dev"]) == 2
    assert "Did you mean orders/dev" in capsys.readouterr().err


def test_without_a_pack_it_says_how_to_name_one(
    tool: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPEECHADAPT_DATA", raising=False)
    assert tool.main(["--model", "x"]) == 2
    assert "Set --data or SPEECHADAPT_DATA" in capsys.readouterr().err


def test_sets_of_another_language_are_left_out_unless_named(tool: ModuleType) -> None:
    assert "asc/dev" not in tool.choose_sets("dev", [], "en")
    assert "asc/dev" in tool.choose_sets("dev", [], None)
    assert list(tool.choose_sets("dev", ["asc/dev"], "en")) == ["asc/dev"]


def test_decoder_options_come_from_the_command_line(tool: ModuleType) -> None:
    words = ["--model", "x", "--beam", "8", "--option", "alpha=0.7", "--option", "word_list=lm"]
    arguments = tool.parse(words)
    assert tool.decoder_options(arguments) == {
        "word_timestamps": False,
        "beam_size": 8,
        "alpha": 0.7,
        "word_list": "lm",
    }
    assert "--beam 8 --option alpha=0.7 --option word_list=lm" in tool.describe_command(arguments)
