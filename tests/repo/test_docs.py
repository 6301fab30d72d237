"""The documents tell the truth: paths exist, commands are the ones CI runs, pages are fresh."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.repo.project import ROOT

DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")
LONGEST = {"ARCHITECTURE.md": 150, "CONTRIBUTING.md": 100}
TOP_LEVEL = ("speechadapt", "tests", "conf", "recipes", "tools", "docs", ".ci")
CI_COMMANDS = ["demo", "check", "test"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_path_a_document_names_exists(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(paths_in(text))
    assert named, f"{name} names no path, so this test shows nothing"
    missing = sorted(path for path in named if not list(ROOT.glob(path.rstrip("/"))))
    assert not missing, f"{name} names {', '.join(missing)}"


@pytest.mark.parametrize("name", [*DOCUMENTS, "CHANGELOG.md", "docs/log.md", "docs/data.md"])
def test_every_link_to_a_file_leads_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("name", LONGEST)
def test_documents_stay_short(name: str) -> None:
    count = len((ROOT / name).read_text(encoding="utf-8").splitlines())
    assert count <= LONGEST[name]


def test_the_commands_of_the_readme_are_the_ones_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    loop = re.search(r"for target in ([^;]+); do", script)
    assert loop is not None
    assert 'make "$target"' in script
    assert loop.group(1).split() == CI_COMMANDS
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"(?:^|`)make ([a-z-]+)", readme, flags=re.MULTILINE)
    assert set(named) == set(CI_COMMANDS)


def test_ci_stops_at_the_first_failure_and_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o111


def test_every_make_target_a_document_names_is_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile(), flags=re.MULTILINE))
    assert set(CI_COMMANDS) <= targets
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"`make ([a-z-]+)", text))
        assert named <= targets, f"{name} names {named - targets}"


def test_every_script_the_makefile_runs_exists() -> None:
    scripts = re.findall(r"tools/\w+\.py", makefile())
    assert scripts
    assert not [script for script in scripts if not (ROOT / script).is_file()]


def test_help_lists_every_documented_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in re.findall(r"^([a-z-]+):.*## ", makefile(), flags=re.MULTILINE):
        assert re.search(rf"make {target}\b", done.stdout)


def test_generated_pages_are_fresh() -> None:
    command = [sys.executable, "tools/gen_docs.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_decisions_are_numbered_without_gaps_and_fit_one_page() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for title in ("## Context", "## Decision", "## Rejected", "## What would change our mind"):
            assert title in text, f"{page.name} lacks '{title}'"
        assert len(text.splitlines()) <= 60


def makefile() -> str:
    """Return the text of the Makefile."""
    return (ROOT / "Makefile").read_text(encoding="utf-8")


def paths_in(text: str) -> Iterator[str]:
    """Yield the repository paths a page names in code spans and code blocks."""
    spans = re.findall(r"`([^`\n]+)`", text)
    blocks = re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL)
    for word in " ".join([*spans, *blocks]).split():
        cleaned = word.strip(",;:()'\"")
        first = cleaned.partition("/")[0]
        if first in TOP_LEVEL and "/" in cleaned:
            yield re.sub(r"<[a-z_]+>", "*", cleaned)


def test_paths_are_found_in_spans_and_blocks() -> None:
    text = "see `speechadapt/core/errors.py`, `recipes/<task>/`\n```text\ntests/unit/  here\n```\n"
    assert list(paths_in(text)) == ["speechadapt/core/errors.py", "recipes/*/", "tests/unit/"]
