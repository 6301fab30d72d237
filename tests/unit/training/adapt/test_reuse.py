from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.training.adapt.frozen_prefix import Reuse
from speechadapt.training.adapt.reuse import PrefixConfig, make_reuse

Folder = Callable[[str], Path]
ENTRY = {
    "states": torch.zeros(1, 2, 3),
    "lengths": torch.tensor([2]),
    "shape": torch.tensor([2, 5]),
}


def test_nothing_is_kept_unless_asked(tiny_folder: Folder) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    assert make_reuse(encoder, None, PrefixConfig(), {}) is None


def test_a_place_on_disk_must_be_named() -> None:
    assert PrefixConfig("memory").problems() == []
    assert PrefixConfig("disk", folder="somewhere").problems() == []
    (problem,) = PrefixConfig("disk").problems()
    assert "set prefix.folder=FOLDER" in problem


def test_runs_share_states_only_where_all_they_depend_on_is_equal(
    tiny_folder: Folder, tmp_path: Path
) -> None:
    config = PrefixConfig("disk", folder=str(tmp_path))

    def made(family: str = "w2v_bert", seed: int = 0, **facts: object) -> Reuse:
        encoder = load_encoder(tiny_folder(family))
        if seed:
            with torch.no_grad():
                next(encoder.model.parameters()).add_(seed)
        handle = attach(encoder, "lora", config={"rank": 2}, roles=["layer.1.attn.q"])
        reuse = make_reuse(encoder, handle, config, facts)
        assert reuse is not None
        return reuse

    made().cache.put("a", ENTRY)
    assert "a" in made().cache
    assert "a" not in made(seed=1).cache
    assert "a" not in made("whisper").cache
    assert "a" not in made(augment={"speed": 1}).cache
    half = PrefixConfig("disk", "fp16", str(tmp_path))
    encoder = load_encoder(tiny_folder("w2v_bert"))
    for other in (make_reuse(encoder, None, half, {}), make_reuse(encoder, None, config, {})):
        assert other is not None
        assert "a" not in other.cache


def test_an_adapter_in_the_first_layer_leaves_nothing_to_keep(tiny_folder: Folder) -> None:
    encoder = load_encoder(tiny_folder("whisper"))
    handle = attach(encoder, "lora", config={"rank": 2}, roles=["attn.q"])
    with pytest.raises(ConfigError, match=r"adapts layer\.0\.attn\.q.*roles=\[layer\.1\.attn\]"):
        make_reuse(encoder, handle, PrefixConfig("memory"), {})
