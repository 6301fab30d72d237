"""`tools/gen_methods.py`: the page of methods says what their files say, and is fresh."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gen_methods
import pytest

from speechadapt.adapters.catalog import method_names, title
from speechadapt.core.errors import ConfigError, SiteError

DOCSTRING = """What it does.

    y' = y + 1

A paragraph.

Source: https://example.org/a section 1;
    and section 2
Reference: https://example.org/long/
    path.py
Differs: in one way.
"""


@dataclass(frozen=True)
class GateConfig:
    """Settings.

    Args:
        width: Wide | narrow, said
            on two lines.
        open: Whether.

    Raises:
        ConfigError: Never.
    """

    width: int = 4
    open: bool = False


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Put a made-up method in the place of every one."""
    module = ModuleType("a_made_up_method", DOCSTRING)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = type("GateConfig", (), {"__module__": module.__name__})
    monkeypatch.setattr(gen_methods, "method", lambda name: SimpleNamespace(config=config))
    return module


@pytest.mark.slow  # ten seconds; `make check` looks each time
def test_the_page_is_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert gen_methods.main(["--check"]) == 0, capsys.readouterr().err


def test_the_page_has_every_method_with_its_title() -> None:
    page = gen_methods.PAGE.read_text(encoding="utf-8")
    names = [name for name in method_names() if gen_methods.is_own(name)]
    assert "lora" in names
    for name in names:
        assert f"| [`{name}`](#{name}) | {gen_methods.in_cell(title(name))} |" in page
        assert f"\n## {name}\n" in page


def test_a_stale_page_is_named_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = tmp_path / "methods.md"
    monkeypatch.setattr(gen_methods, "PAGE", stale)
    monkeypatch.setattr(gen_methods, "ROOT", tmp_path)
    monkeypatch.setattr(gen_methods, "page", lambda: "new\n")
    assert gen_methods.main(["--check"]) == 1
    assert "methods.md is stale: run `make docs`" in capsys.readouterr().err
    assert not stale.exists()
    assert gen_methods.main([]) == 0
    assert stale.read_text() == f"{gen_methods.NOTE}new\n"
    assert gen_methods.main(["--check"]) == 0


@pytest.mark.usefixtures("gate")
def test_a_docstring_is_taken_apart() -> None:
    words = gen_methods.words_of("gate")
    assert words.title == "What it does."
    assert words.body == "    y' = y + 1\n\nA paragraph."
    assert words.sections == {
        "Source": "https://example.org/a section 1; and section 2",
        "Reference": "https://example.org/long/path.py",
        "Differs": "in one way.",
    }


def test_a_method_without_a_source_is_refused(gate: ModuleType) -> None:
    gate.__doc__ = "What it does.\n\nDiffers: yes.\n"
    with pytest.raises(ConfigError, match=r"gate\.py is to say .* name its 'Source:'"):
        gen_methods.words_of("gate")


def test_settings_come_with_their_defaults_and_descriptions() -> None:
    assert list(gen_methods.setting_rows(GateConfig)) == [
        ("`width`", "`4`", "Wide \\| narrow, said on two lines."),
        ("`open`", "`false`", "Whether."),
    ]


def test_a_closed_form_that_is_wrong_stops_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = SimpleNamespace(num_parameters=lambda: 12, expected_parameters=lambda: 11)
    monkeypatch.setattr(gen_methods, "build", lambda encoder, name: handle)
    with pytest.raises(ConfigError, match="closed form of 'gate' says 11 parameters on toy"):
        gen_methods.parameters_cell(SimpleNamespace(family="toy"), "gate")


def test_an_encoder_without_a_place_for_a_method_gets_a_dash(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(encoder: object, name: str) -> None:
        raise SiteError("no such role.")

    monkeypatch.setattr(gen_methods, "build", refuse)
    assert gen_methods.parameters_cell(SimpleNamespace(family="toy"), "gate") == "-"
