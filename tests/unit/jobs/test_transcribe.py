from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.jobs.ledger import Record
from speechadapt.jobs.options import TranscribeOptions
from speechadapt.jobs.plan import PlanItem
from speechadapt.jobs.transcribe import KIND, transcribe


def test_an_output_folder_must_be_named():
    with pytest.raises(ConfigError, match="-o names the folder"):
        transcribe(TranscribeOptions(inputs=("a.wav",)))


def test_an_item_has_a_file_for_each_format():
    item = PlanItem("a", "a", "a", "deep/a")
    options = TranscribeOptions(formats="json,txt")
    assert KIND.outputs(options, item) == ("deep/a.txt", "deep/a.json")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.txt", "", "is empty"),
        ("a.txt", "yes", None),
        ("a.json", "{", "is not JSON"),
        ("a.vtt", "1", "is not WebVTT"),
        ("a.vtt", "WEBVTT", None),
    ],
)
def test_an_output_is_what_its_name_says(tmp_path: Path, name: str, text: str, problem: str | None):
    (tmp_path / name).write_text(text)
    record = Record("a", "k", "ok", row={"pred_text": "yes"})
    assert KIND.check_output(tmp_path / name, record) == problem
