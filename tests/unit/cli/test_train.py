from __future__ import annotations

import subprocess
import sys

import pytest

from tests.command import call

LIGHT = """
import sys
from speechadapt.cli.main import main
try:
    main(["train", "--help"])
except SystemExit as ending:
    assert ending.code == 0, ending.code
heavy = {"torch", "transformers", "hydra", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_help_of_train_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--dry-run" in done.stdout


def test_without_a_recipe_the_recipes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train") == 2
    assert "no recipe was given; name one: recipe=adapt/" in capsys.readouterr().err
