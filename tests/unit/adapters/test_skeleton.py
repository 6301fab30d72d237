"""What is written for a new method: clean, with a test that can fail, and never over a file.

That it passes the contract is shown in `tests/contract/test_skeleton.py`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from speechadapt.adapters import catalog, skeleton
from speechadapt.core.errors import ConfigError

ROOT = Path(__file__).parents[3]
NAMES = ("gate", "tiny_gate_with_a_rather_long_name_2")


def load(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> ModuleType:
    """Run a module's text under a name."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)  # dataclasses look their module up there
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return module


def test_the_golden_test_of_the_skeleton_passes_and_can_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offered = load(monkeypatch, "other_package_gate", skeleton.method_source("tiny_gate"))
    text = skeleton.golden_test_source("tiny_gate", offered.__name__)
    tests = load(monkeypatch, "golden_tiny_gate", text)
    ran = [getattr(tests, name)() for name in dir(tests) if name.startswith("test_")]
    assert len(ran) == 3
    offered.TinyGateAdapter.leave = lambda self, x, y, context: 2 * y
    with pytest.raises(AssertionError):
        tests.test_a_frame_is_changed_as_computed_by_hand()
    with pytest.raises(AssertionError):
        tests.test_nothing_changes_at_the_start()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_formatted_and_free_of_lint(name: str) -> None:
    methods = "adapters/methods"
    module = f"speechadapt.adapters.methods.{name}"
    texts = {
        f"speechadapt/{methods}/{name}.py": skeleton.method_source(name),
        f"tests/unit/{methods}/test_{name}.py": skeleton.golden_test_source(name, module),
    }
    known = 'lint.isort.known-first-party=["speechadapt"]'  # else a file that is there decides
    for path, text in texts.items():
        for words in (["check", "--config", known], ["format", "--check"]):
            ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", "--stdin-filename", path]
            command = [*ruff, "-"]
            done = subprocess.run(command, input=text, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Gate", "tiny-gate", "2gate", "_gate", "tiny__gate", "class", ""])
def test_a_name_that_no_module_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="Use lower-case words"):
        skeleton.method_source(name)


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match="an adapter method 'lora' already"):
        skeleton.method_source("lora")


def test_of_several_files_none_is_written_where_one_is_there(tmp_path: Path) -> None:
    first, second = tmp_path / "first.py", tmp_path / "second.py"
    second.write_text("mine\n")
    with pytest.raises(ConfigError, match=r"second\.py' was to be written, but is there already"):
        skeleton.write_new({first: "a\n", second: "b\n"})
    assert not first.exists()
    assert second.read_text() == "mine\n"


def test_the_lines_of_an_entry_point_are_what_the_catalogue_reads() -> None:
    lines = skeleton.entry_point("gate", "own.gate").splitlines()
    assert lines == [f'[project.entry-points."{catalog.GROUP}"]', 'gate = "own.gate"']
