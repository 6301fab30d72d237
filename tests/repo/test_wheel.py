"""The wheel holds what a user without the clone needs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.repo.project import PACKAGE, ROOT


@pytest.mark.slow
def test_the_wheel_holds_configs_recipes_clips_and_models(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(built).namelist())
    assert "speechadapt/conf/__init__.py" in names
    assert "speechadapt/py.typed" in names
    for folder in ("demo", "pretrained"):
        for path in (PACKAGE / folder).rglob("*"):
            if path.is_file():
                assert f"speechadapt/{path.relative_to(PACKAGE).as_posix()}" in names
    for path in (ROOT / "recipes").rglob("*.yaml"):
        assert f"speechadapt/{path.relative_to(ROOT).as_posix()}" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "tools/", "runs/"))]
