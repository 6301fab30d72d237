"""Extras are optional: every module loads when none of them is installed."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys

from tests.repo.project import module_name, modules

# Modules of the extras' distributions, also of those that are not installed here.
MODULES = {
    "av": "av",
    "beartype": "beartype",
    "ctranslate2": "ctranslate2",
    "hypothesis": "hypothesis",
    "import-linter": "importlinter",
    "lhotse": "lhotse",
    "matplotlib": "matplotlib",
    "mypy": "mypy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "peft": "peft",
    "pesq": "pesq",
    "psutil": "psutil",
    "pystoi": "pystoi",
    "pytest": "pytest",
    "pytest-xdist": "xdist",
    "ray": "ray",
    "speechmos": "speechmos",
    "tensorboard": "tensorboard",
}
NOT_IMPORTABLE = {"ruff", "hatchling", "types-pyyaml"}  # tools and stubs

PROBE = """
import importlib, json, sys, warnings
hidden, wanted = json.loads(sys.argv[1])

class Hide:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            return None  # as if it were not installed
        return self.finder.find_spec(name, path, target)

sys.meta_path = [Hide(finder) for finder in sys.meta_path]
problems = {}
for name in wanted:
    try:
        importlib.import_module(name)
    except Exception as error:
        problems[name] = f"{type(error).__name__}: {error}"
print(); print(json.dumps(problems))
"""


def test_every_module_loads_without_any_extra() -> None:
    extras = distributions_of_extras()
    core = core_closure()
    hidden = sorted(MODULES[name] for name in extras - core - NOT_IMPORTABLE)
    assert "av" in hidden
    wanted = [module_name(path) for path in modules()]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([hidden, wanted])],
        capture_output=True,
        text=True,
        check=True,
    )
    problems = json.loads(done.stdout.strip().splitlines()[-1])
    assert problems == {}


def test_the_probe_notices_a_hidden_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([["av"], ["av.container", "json"]])],
        capture_output=True,
        text=True,
        check=True,
    )
    problems = json.loads(done.stdout.strip().splitlines()[-1])
    assert list(problems) == ["av.container"]


def distributions_of_extras() -> set[str]:
    """Return the distributions named by any extra."""
    requirements = importlib.metadata.requires("speechadapt") or []
    return {name_of(text) for text in requirements if "extra ==" in text}


def core_closure() -> set[str]:
    """Return every distribution the core brings along, directly or not."""
    found: set[str] = set()
    queue = ["speechadapt"]
    while queue:
        name = queue.pop()
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in requirements:
            if "extra ==" not in text and name_of(text) not in found:
                found.add(name_of(text))
                queue.append(name_of(text))
    return found


def name_of(requirement: str) -> str:
    """Return the distribution of a requirement, spelt as package tools compare it."""
    name = re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()
