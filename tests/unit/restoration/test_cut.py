"""The cut encoder: the whole model's hidden states, and nothing above them in memory."""

from __future__ import annotations

import pytest
import torch

from speechadapt.core.errors import ConfigError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.restoration.cut import load_cut


def test_its_frames_are_the_whole_models_states_after_that_layer(tiny_folder, signal) -> None:
    folder = tiny_folder("w2v_bert")
    whole, cut = load_encoder(folder), load_cut(folder, 1)
    features, lengths = whole.extract([signal(9000), signal(5000, 1)])
    mask = torch.arange(features.shape[1])[None] < lengths[:, None]
    states = whole.model(
        input_features=features, attention_mask=mask.long(), output_hidden_states=True
    ).hidden_states
    frames, _ = cut(features, lengths)
    torch.testing.assert_close(frames[mask], states[1][mask])
    assert not torch.allclose(frames[mask], states[2][mask])


def test_layers_above_are_not_in_memory(tiny_folder) -> None:
    cut = load_cut(tiny_folder("w2v_bert"), 1)
    assert len(cut.model.encoder.layers) == 1
    assert not any("layers.1." in name for name in cut.model.state_dict())
    assert not any(role.startswith("layer.1.") for role in cut.sites)
    whole = load_encoder(tiny_folder("w2v_bert"))
    assert sum(p.numel() for p in cut.model.parameters()) < 0.6 * sum(
        p.numel() for p in whole.model.parameters()
    )


def test_it_is_frozen_and_knows_its_files(tiny_folder) -> None:
    folder = tiny_folder("w2v_bert")
    cut = load_cut(folder, 2, name="some/model")
    assert not any(parameter.requires_grad for parameter in cut.model.parameters())
    assert not cut.model.training
    assert cut.source is not None
    assert cut.source.name == "some/model"
    assert cut.source.fingerprint == load_encoder(folder).source.fingerprint


def test_wrong_layers_and_families_are_refused(tiny_folder) -> None:
    with pytest.raises(ConfigError, match="layer 3 was asked for; 'w2v_bert' has 1 to 2"):
        load_cut(tiny_folder("w2v_bert"), 3)
    with pytest.raises(ConfigError, match="restoration needs one of w2v_bert"):
        load_cut(tiny_folder("whisper"), 1)
