"""Plain order of the committed files: clean ends, small sizes, configuration that parses."""

from __future__ import annotations

import re
import tomllib

import yaml
from packaging.requirements import Requirement

from tests.repo.project import ROOT, project_files, text_files

MOST_BYTES = 500_000
LARGE_FOLDERS = ("speechadapt/pretrained",)  # weights have budgets of their own
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".cff", ".txt", ".sh", ""}
VERBATIM = ("LICENSE",)  # kept as published


def test_text_files_end_in_one_newline_and_have_no_trailing_space() -> None:
    problems = []
    for path, text in text_files():
        if path.as_posix() in VERBATIM or path.suffix not in SUFFIXES:
            continue
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            problems.append(f"{path} does not end in one newline")
        trailing = (n for n, line in enumerate(text.split("\n"), 1) if line != line.rstrip())
        problems += [f"{path} line {number} has trailing space" for number in trailing]
    assert not problems, "\n".join(problems)


def test_no_file_is_large_outside_the_bundled_models() -> None:
    large = [
        path.relative_to(ROOT).as_posix()
        for path in project_files()
        if path.stat().st_size > MOST_BYTES
    ]
    assert not [name for name in large if not name.startswith(LARGE_FOLDERS)]


def test_no_file_can_run_code_when_it_is_loaded() -> None:
    suffixes = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib"}
    assert not [path for path in project_files() if path.suffix in suffixes]


def test_configuration_files_parse() -> None:
    parsed = 0
    for path in project_files():
        if path.suffix == ".toml":
            tomllib.loads(path.read_text(encoding="utf-8"))
            parsed += 1
        elif path.suffix in (".yaml", ".yml", ".cff"):
            yaml.safe_load(path.read_text(encoding="utf-8"))
            parsed += 1
    assert parsed >= 3


def test_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]


def test_torch_and_torchaudio_are_one_pair_to_the_last_digit() -> None:
    """A later patch release of torchaudio alone did not load beside the torch it asked for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [Requirement(one) for one in project["dependencies"]]
    pair = {one.name: str(one.specifier) for one in found if one.name.startswith("torch")}
    assert set(pair) == {"torch", "torchaudio"}
    (only,) = set(pair.values())
    assert re.fullmatch(r"==\d+\.\d+\.\d+", only)
