"""Every adapter method on every encoder family, found by discovery: being there is being tested."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from speechadapt.adapters.catalog import method, method_names, title
from speechadapt.core.bind import bind
from speechadapt.encoders.catalog import families
from tests.contract.adapter_checks import CHECKS, PADDED_CHECKS, Case
from tests.contract.outside import offered

AGAIN = (("whisper", "full"),)  # a family's other way of padding
ENCODERS = [*((family, "native") for family in families()), *AGAIN]


@pytest.fixture
def case(request: pytest.FixtureRequest, make_case) -> Case:
    name, encoder = request.param
    return make_case(name, *encoder)


CASES = [(name, encoder) for name in method_names() for encoder in ENCODERS]
CHECKED = [
    (case, check) for case in CASES for check in (PADDED_CHECKS if case[1] in AGAIN else CHECKS)
]


def label(value: object) -> str:
    if isinstance(value, tuple):
        name, encoder = value
        return f"{name}-{'-'.join(encoder)}"
    return str(getattr(value, "__name__", value))


@pytest.mark.parametrize(("case", "check"), CHECKED, ids=label, indirect=["case"])
def test_adapter(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("family", list(families()))
def test_compiled_encoders_give_the_same_output(family: str, tmp_path: Path) -> None:
    """In a process of its own: the shape checks of the test run cannot be traced."""
    command = [sys.executable, "-m", "tests.contract.compile_adapters", family, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() == set(method_names())
    for name, (error, change) in found.items():
        assert error < 1e-4, name
        assert change > 1e-3, name


@pytest.mark.parametrize("name", method_names())
def test_a_method_says_what_it_is(name: str) -> None:
    found = method(name)
    assert found.source.startswith("https://")
    assert title(name)
    assert len(title(name)) <= 100
    assert isinstance(found.tiny, found.config)


@pytest.mark.parametrize("name", method_names())
def test_settings_come_back_from_json(name: str) -> None:
    for settings in (method(name).tiny, method(name).config()):
        again, problems = bind(method(name).config, asdict(settings))
        assert problems == []
        assert again == settings


@pytest.mark.parametrize("family", list(families()))
@pytest.mark.parametrize("check", CHECKS, ids=label)
def test_a_method_of_another_package_passes(family, check, make_case, tmp_path: Path) -> None:
    """One new file, offered as an entry point, and nothing else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    with offered(outside) as name:
        assert name in method_names()
        check(make_case(name, family, "native"))
    assert name not in method_names()
