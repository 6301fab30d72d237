"""`tools/alignment_heads.py`: the head that knows the words' places is found and stored."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import alignment_heads
import numpy as np
import pytest
from alignment_heads import Clip, choose, write_heads

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.base import Word

STARTS = (0.2, 0.9, 1.5)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a model of two layers with two heads, of which (1, 0) is off by least."""
    offsets = {(0, 0): 0.5, (0, 1): 0.4, (1, 0): 0.1, (1, 1): -0.2}

    def head_words(_: Any, clip: Clip, heads: Any) -> tuple[Word, ...]:
        offset = np.mean([offsets[head] for head in heads])
        return tuple(Word("x", start + offset, start + offset, 1.0) for start in clip.starts)

    monkeypatch.setattr(alignment_heads, "head_words", head_words)
    config = SimpleNamespace(decoder_layers=2, decoder_attention_heads=2)
    generator = SimpleNamespace(network=SimpleNamespace(config=config))
    return SimpleNamespace(decoder=SimpleNamespace(generator=generator), margin_s=0.0)


def test_a_head_joins_only_where_it_brings_the_words_nearer(model: Any) -> None:
    clips = [Clip(np.zeros(8, np.float32), "a b c", STARTS)]
    heads, lines = choose(model, clips, 6)
    assert heads == [(1, 0), (1, 1)]
    assert lines[2].startswith("head (1, 0): mean 0.100 s")
    assert choose(model, clips, 1)[0] == [(1, 0)]


def test_texts_without_words_are_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="no head placed a word"):
        choose(model, [Clip(np.zeros(8, np.float32), "", ())], 6)


def test_the_choice_is_stored_beside_the_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"max_length": 9}))
    write_heads(tmp_path, [(1, 0)])
    assert json.loads(path.read_text()) == {"max_length": 9, "alignment_heads": [[1, 0]]}
