"""Every recipe says at its top what it does, how to run it, how long it takes and what it gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.repo.project import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*/*.yaml"))
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("recipes/*/*.md"))
    if page.name != "log.md"  # tells of recipes as they were
)
MOST_LINES = 60


def header_problems(text: str) -> list[str]:
    """Say what the comment at the top of a recipe lacks."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    problems = [] if lines and re.match(r"# [A-Z].+", lines[0]) else ["a first line that says what"]
    for key in ("Command", "Time", "Expected"):
        if not any(re.match(rf"# {key}: \S", line) for line in lines):
            problems.append(f"# {key}: ...")
    return problems


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recipe_has_its_header_and_names_itself(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not header_problems(text)
    assert f"recipe={path.parent.name}/{path.stem}" in text
    assert len(text.splitlines()) <= MOST_LINES
    assert isinstance(yaml.safe_load(text), dict)


def test_a_header_without_a_time_is_found() -> None:
    whole = "# Train it.\n# Command: x\n# Time: 2 h\n# Expected: 8 %\na: 1\n"
    assert header_problems(whole) == []
    assert header_problems(whole.replace("# Time: 2 h\n", "")) == ["# Time: ..."]
    assert header_problems("a: 1\n# Command: late\n")[0] == "a first line that says what"


def test_there_are_recipes_for_the_bundled_models() -> None:
    from speechadapt.models.card import bundled_models, read_card

    known = {f"{path.parent.name}/{path.stem}" for path in RECIPES}
    for folder in bundled_models().values():
        recipes = read_card(folder).recipes
        assert recipes, f"the card of {folder.name} names no recipe"
        assert set(recipes) <= known


def unknown_recipes(text: str) -> set[str]:
    """Return the recipes that a page names and that do not exist."""
    known = {f"{path.parent.name}/{path.stem}" for path in RECIPES}
    named = re.findall(r"\brecipe=([a-z_]+/[a-z0-9_]+)(?![a-z0-9_<*])", text)
    return set(named) - known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_recipes_that_exist(page: Path) -> None:
    assert not unknown_recipes(page.read_text(encoding="utf-8"))


def test_a_recipe_that_is_gone_is_found() -> None:
    assert unknown_recipes("train recipe=multitask/two_stages x") == {"multitask/two_stages"}
    assert unknown_recipes("train recipe=multitask/shared") == set()
    assert unknown_recipes("train recipe=multitask/<name>") == set()
