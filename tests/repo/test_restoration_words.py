"""`tools/restoration_words.py`: the sides it hears, and the ratio of what is heard wrongly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import restoration_cases
import restoration_words

from speechadapt.metrics.report import score_set
from speechadapt.metrics.wer import Pair
from speechadapt.models.restorer_tiny import write_tiny_restorer
from tests import synthetic
from tests.tiny_tasks import whisper_folder


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(restoration_cases, "SPOKEN", {"dev": ("wake/dev",)})
    return synthetic.write_pack(tmp_path / "pack", ("wake",), ("noise",), ("rir",), dev=4)


def test_cases_are_degraded_alike_every_time_and_keep_their_length(pack: Path) -> None:
    first, again = (list(restoration_cases.spoken_cases(pack, "dev")) for _ in range(2))
    assert len(first) == 4
    for one, other in zip(first, again, strict=True):
        assert len(one.clean) == len(one.degraded)
        assert not np.allclose(one.clean, one.degraded)
        np.testing.assert_array_equal(one.degraded, other.degraded)
    assert len(list(restoration_cases.spoken_cases(pack, "dev", most=2))) == 2


def test_the_ratio_is_that_of_all_word_errors() -> None:
    def side(texts: list[str]) -> object:
        return score_set("x", [Pair(str(n), "one two", text) for n, text in enumerate(texts)])

    found = restoration_words.errors_ratio(
        side(["one two", "one three", "two"]), side(["one three", "three three", "two"])
    )
    assert found.estimate == pytest.approx(2 / 4)


def test_other_languages_are_written_as_their_judge_writes(tmp_path: Path) -> None:
    root = synthetic.write_pack(tmp_path / "pack", ("zh_words",), ("noise",), ("rir",), dev=2)
    manifest = root / "manifests" / "zh_words.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(f"{json.dumps(row | {'text': '透明'})}\n" for row in rows))
    cases = list(restoration_cases.spoken_cases(root, "dev", language="zh-Latn-pinyin"))
    assert {(one.group, one.text) for one in cases} == {("zh_words/dev", "tou ming")}


def test_character_errors_count_where_asked() -> None:
    def side(text: str) -> object:
        return score_set("x", [Pair("0", "touming", text)])

    found = restoration_words.errors_ratio(side("toumin"), side("touxxx"), "characters")
    assert found.estimate == pytest.approx(1 / 4)


def test_a_whole_run_hears_three_sides(pack: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    words = ["--model", str(write_tiny_restorer(tmp_path / "model")), "--data", str(pack)]
    words += ["--judge", str(whisper_folder(tmp_path)), "--output", str(output)]
    assert restoration_words.main(words) in (0, 1)
    found = json.loads(output.read_text())
    assert str(tmp_path) not in output.read_text()
    assert [one["set"] for one in found["details"]["sets"]] == [
        f"{group}: {side}" for group in ("wake/dev", "all") for side in restoration_words.SIDES
    ]
    assert found["figures"][0]["claim"] == "restoration_words"
