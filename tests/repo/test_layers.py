"""Imports point down, and the lint, type and size settings hold what they promise."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.repo.project import PACKAGE, ROOT, modules, parsed

MOST_LINES = 400
MOST_FUNCTION_LINES = 60
VAGUE_NAMES = ("util", "utils", "common", "misc", "helper", "helpers", "tools")


def test_import_contracts_are_kept() -> None:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["speechadapt", "tools"])
def test_files_and_functions_stay_short(folder: str) -> None:
    problems = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        if (count := len(text.splitlines())) > MOST_LINES:
            problems.append(f"{name} has {count} lines, at most {MOST_LINES} are allowed")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                count = (node.end_lineno or node.lineno) - node.lineno + 1
                if count > MOST_FUNCTION_LINES:
                    problems.append(f"{name}: {node.name} has {count} lines")
    assert not problems, "\n".join(problems)


def test_modules_are_named_for_what_they_hold() -> None:
    vague = [path for path in modules() if path.stem in VAGUE_NAMES]
    assert not vague


def test_torchaudio_is_imported_inside_functions_alone() -> None:
    allowed = {"audio", "decoders"}
    for path in modules():
        tree = parsed(PACKAGE / path)
        top = {name for node in tree.body for name in imported(node)}
        assert "torchaudio" not in top, f"{path} imports torchaudio when it is loaded"
        anywhere = {name for node in ast.walk(tree) for name in imported(node)}
        if "torchaudio" in anywhere and path.parts[0] not in allowed:
            assert path.as_posix() == "cli/doctor.py", f"{path} imports torchaudio"


def imported(node: ast.AST) -> set[str]:
    """Return the top-level packages one statement imports."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return {node.module.partition(".")[0]}
    return set()
