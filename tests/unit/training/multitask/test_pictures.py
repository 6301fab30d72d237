from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from speechadapt.core.errors import ConfigError, MissingExtra
from speechadapt.training.multitask.pictures import draw_matrix, draw_routing

MATRIX = {
    "a": {"one": {"cer": 0.1}, "two": {"cer": 0.9}},
    "b": {"one": {"cer": 1}, "two": {"cer": 0}},
}
WEIGHTS = {
    task: {site: [0.25, 0.75] for site in ("layer.0.ffn", "layer.1.ffn", "layer.2.ffn", "end")}
    for task in ("one", "two", "three")
}


def test_pictures_are_drawn_and_repeat_themselves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for number in range(2):
        draw_matrix(MATRIX, "cer", tmp_path / f"matrix{number}.png")
        draw_routing(WEIGHTS, ["a", "b"], tmp_path / f"routing{number}.png")
    for name in ("matrix", "routing"):
        one, other = ((tmp_path / f"{name}{number}.png").read_bytes() for number in range(2))
        assert one[:4] == b"\x89PNG"
        assert one == other
    other = {**MATRIX, "a": {"one": {"cer": 0.7}, "two": {"cer": 0.9}}}
    draw_matrix(other, "cer", tmp_path / "other.png")
    assert (tmp_path / "other.png").read_bytes() != (tmp_path / "matrix0.png").read_bytes()


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none was scored"):
        draw_matrix({}, "cer", tmp_path / "x.png")
    with pytest.raises(ConfigError, match="no weights were noted"):
        draw_routing({}, [], tmp_path / "x.png")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"speechadapt\[report\]"):
        draw_matrix(MATRIX, "cer", tmp_path / "x.png")
