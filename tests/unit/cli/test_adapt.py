from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests import command

call = partial(command.call, "adapt")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    for word in ("DATA", "--base", "--output", "--method", "--budget", "--option", "--dry-run"):
        assert word in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-O", "rank=4"], "Did you mean adapter.rank?"),
        (["--method", "lra"], "Did you mean lora"),
        (["--budget", "lots"], "--budget takes parameters"),
        ([], "gone' does not exist"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(str(tmp_path / "gone"), "-o", str(tmp_path / "out"), *words) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_output_of_something_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.md").write_text("x")
    assert call(str(tmp_path), "-o", str(tmp_path / "out")) == 2
    assert "holds something already" in capsys.readouterr().err
