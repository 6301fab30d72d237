"""`tools/new_adapter.py` writes a method and its golden test where the project looks for them."""

from __future__ import annotations

from pathlib import Path

import new_adapter
import pytest

from speechadapt.adapters import skeleton
from tests.repo.test_mirror import mirror

METHOD = Path("adapters/methods/tiny_gate.py")


def test_a_method_and_its_mirrored_test_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_adapter.main(["tiny_gate"], tmp_path) == 0
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py")}
    assert written == {Path("speechadapt") / METHOD, mirror(METHOD)}
    method = (tmp_path / "speechadapt" / METHOD).read_text()
    assert method == skeleton.method_source("tiny_gate")
    test = (tmp_path / mirror(METHOD)).read_text()
    assert "from speechadapt.adapters.methods.tiny_gate import (" in test
    assert "wrote speechadapt/adapters/methods/tiny_gate.py" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new_adapter.main(["tiny_gate"], tmp_path)
    (tmp_path / "speechadapt" / METHOD).write_text("mine\n")
    assert new_adapter.main(["tiny_gate"], tmp_path) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "speechadapt" / METHOD).read_text() == "mine\n"


def test_a_bad_name_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new_adapter.main(["../gate"], tmp_path) == 2
    assert "a method was to be called '../gate'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
