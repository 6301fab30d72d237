from __future__ import annotations

from pathlib import Path

import pytest

import speechadapt
from speechadapt.config.shipped import group_options, recipe_names, shipped_folder
from speechadapt.core.errors import ConfigError


def test_recipes_and_groups_of_the_project_are_found() -> None:
    assert "pretrain/best_rq" in recipe_names()
    assert "pack" in group_options()["data"]
    assert "debug" in group_options()["trainer"]


def test_a_users_folder_adds_recipes_options_and_groups(tmp_path: Path) -> None:
    for name in ("recipes/mine/new", "trainer/long", "augment/strong"):
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("task: ctc\n")
    assert "mine/new" in recipe_names([tmp_path])
    options = group_options([tmp_path])
    assert {"long", "debug"} <= set(options["trainer"])
    assert options["augment"] == ["strong"]
    assert "recipes" not in options


def test_an_installed_package_holds_them_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "speechadapt"
    (package / "recipes").mkdir(parents=True)
    monkeypatch.setattr(speechadapt, "__file__", str(package / "__init__.py"))
    assert shipped_folder("recipes") == package / "recipes"
    with pytest.raises(ConfigError, match="no folder 'conf'; install speechadapt again"):
        shipped_folder("conf")
