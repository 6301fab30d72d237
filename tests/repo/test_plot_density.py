"""`tools/plot_density.py`: the masks of a saved adapter, by site."""

from __future__ import annotations

from pathlib import Path

import plot_density
import pytest

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.encoders.catalog import load_encoder


def test_the_shares_of_a_saved_adapter_are_drawn_by_site(
    tiny_folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    base = tiny_folder("whisper")
    encoder = load_encoder(base)
    config = {"settings": {"bottleneck": 5}, "density": 0.25, "score": "random"}
    folder = store.save(attach(encoder, "sparse", name="own", config=config), tmp_path / "own")
    shares = plot_density.shares(folder, str(base))
    assert shares == {f"layer.{number}.ffn": 0.25 for number in (0, 1)}
    picture = tmp_path / "density.png"
    words = [str(folder), "--base", str(base), "--output", str(picture)]
    assert plot_density.main(words) == 0
    assert picture.is_file()
    assert capsys.readouterr().out.splitlines()[0] == "layer.0.ffn  0.250"
    other = store.save(attach(encoder, "parallel", name="other"), tmp_path / "other")
    assert plot_density.main([str(other), *words[1:]]) == 2
    assert "which keeps every entry" in capsys.readouterr().err
