from __future__ import annotations

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.adapters.attach import active
from speechadapt.adapters.compose.route import RETRIEVER
from speechadapt.adapters.composed import compose
from speechadapt.adapters.handle import attachment, attachments
from speechadapt.adapters.retrieval import describe_clips, make_card, save_card
from speechadapt.adapters.retrieval_index import build_index
from speechadapt.core.errors import CheckpointError, ConfigError
from tests.unit.adapters.sounds import KINDS, sound, sounds


@pytest.fixture
def index(load, trained, tmp_path):
    """Write three adapters of unlike methods with cards, and their index; return its folder."""
    encoder = load()
    handles = [
        *trained(encoder, "lora", names="a"),
        *trained(encoder, "parallel", names="bc"),
    ]
    folders = []
    for handle, kind in zip(handles, KINDS, strict=True):
        folders.append(store.save(handle, tmp_path / kind))
        described = describe_clips(encoder, sounds(kind, 12), [0])
        save_card(make_card(encoder, kind, described, [0]), folders[-1])
    build_index(encoder, folders, tmp_path / "index", threshold=5.0)
    return tmp_path / "index"


CLIPS = [sound("noise", 50), sound("low", 51, 6000), sound("clicks", 52), sound("high", 53, 9000)]


def test_every_row_gets_the_adapter_it_sounds_like(load, index):
    encoder = load()
    (name,) = compose(encoder, f"auto({index})")
    retriever = attachment(encoder, name).notes[RETRIEVER]
    weights = retriever.weights(CLIPS)
    assert weights.argmax(1).tolist()[:2] == [2, 0]
    assert weights.sum(1).tolist() == [1.0, 1.0, 0.0, 1.0]
    with torch.no_grad(), active(encoder, name, {"adapter_weights": weights}):
        mixed, lengths = encoder.encode(CLIPS)
    for row, kind in enumerate(("noise", "low", None, "high")):
        with torch.no_grad(), active(encoder, kind):
            alone, _ = encoder.encode([CLIPS[row]])
        valid = int(lengths[row])
        torch.testing.assert_close(mixed[row, :valid], alone[0], rtol=0, atol=1e-5)


def test_settings_reach_the_choice(load, index):
    encoder = load()
    (name,) = compose(encoder, f"auto({index}, top=2, temperature=1000, threshold=100000)")
    weights = attachment(encoder, name).notes[RETRIEVER].weights(CLIPS)
    assert (weights > 0).sum(1).tolist() == [2, 2, 2, 2]


def test_without_weights_a_call_says_what_is_missing(load, index):
    encoder = load()
    compose(encoder, f"auto({index})", name="chosen", activate=False)
    with pytest.raises(ConfigError, match="'chosen' needs the condition 'adapter_weights'"):
        with active(encoder, "chosen"):
            encoder.encode(CLIPS)


def test_an_adapter_that_changed_since_is_named(load, index):
    encoder = load()
    handle = store.load(encoder, index.parent / "high")
    with torch.no_grad():
        next(handle.parameters()).view(-1)[0] += 1e-3
    store.save(handle, index.parent / "high")
    fresh = load()
    with pytest.raises(CheckpointError, match=r"'high' .* changed since"):
        compose(fresh, f"auto({index})")
    assert attachments(fresh) == {}


def test_an_index_of_another_base_is_refused(load, index, tmp_path):
    from speechadapt.encoders.catalog import load_encoder
    from speechadapt.encoders.tiny import write_tiny

    other = load_encoder(write_tiny("whisper", tmp_path / "other", seed=7))
    with pytest.raises(CheckpointError, match="was made with the weights"):
        compose(other, f"auto({index})")


def test_auto_takes_one_index(load, index):
    with pytest.raises(ConfigError, match="takes 1 or more index, got 0"):
        compose(load(), "auto")
    with pytest.raises(ConfigError, match="chooses from one index, but 2 were named"):
        compose(load(), f"auto({index}, elsewhere)")
