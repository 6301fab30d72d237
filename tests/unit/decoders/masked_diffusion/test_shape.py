from __future__ import annotations

import pytest

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape, read_shape


def test_a_shape_survives_json() -> None:
    shape = DiffusionShape(dim=24, heads=2, condition_dim=7, gate="none")
    assert read_shape(shape.to_json() | {"model_type": "x"}, "toy") == shape
    assert shape.mask_id == shape.vocab_size
    assert shape.hears
    assert not DiffusionShape().hears


def test_a_shape_that_says_nothing_of_streams_is_a_plain_network() -> None:
    row = DiffusionShape(dim=24, heads=2).to_json()
    older = {key: row[key] for key in row if key not in ("streams", "prefix")}
    assert read_shape(older, "toy").streams == 1
    assert read_shape(row | {"streams": 4, "prefix": 5}, "toy").streams == 4
    with pytest.raises(CheckpointError, match=r"'toy' cannot be used: .*streams"):
        read_shape(row | {"streams": 0}, "toy")


def test_heads_need_an_even_width() -> None:
    with pytest.raises(ConfigError, match=r"dim 20 .* with 4 heads.*multiple of 8"):
        DiffusionShape(dim=20, heads=4)
    with pytest.raises(ConfigError, match="frame_code=count counts by the length head"):
        DiffusionShape(condition_dim=8, length_head=False)
    with pytest.raises(ConfigError, match="positions must be 2 or more, got 1"):
        DiffusionShape(positions=1)


def test_a_config_that_cannot_be_used_says_why() -> None:
    row = DiffusionShape().to_json()
    with pytest.raises(CheckpointError, match=r"'toy' does not say layers, heads"):
        read_shape({key: row[key] for key in row if key not in ("layers", "heads")}, "toy")
    with pytest.raises(CheckpointError, match=r"'toy' cannot be used: .*layers"):
        read_shape(row | {"layers": 0}, "toy")
    with pytest.raises(CheckpointError, match="multiple of 8"):
        read_shape(row | {"dim": 20}, "toy")
