"""Speaker models: an x-vector model of transformers from a folder, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from speechadapt.core.errors import CatalogError, CheckpointError
from speechadapt.models.speaker import load_speaker_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random x-vector model of a few thousand numbers."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForXVector

    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(10, 16),
        conv_kernel=(10, 16),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        tdnn_dim=(8, 8),
        tdnn_kernel=(3, 1),
        tdnn_dilation=(1, 1),
        xvector_output_dim=8,
        architectures=["Wav2Vec2ForXVector"],
    )
    place = tmp_path_factory.mktemp("speakers") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Wav2Vec2ForXVector(config).save_pretrained(place)
    Wav2Vec2FeatureExtractor().save_pretrained(place)
    return place


def test_a_vector_has_length_one_and_follows_the_voice(folder: Path) -> None:
    model = load_speaker_model(folder)
    random = np.random.default_rng(0)
    signals = [random.standard_normal(16000).astype(np.float32) * s for s in (0.1, 0.2)]
    one, other = (model.embed(signal) for signal in signals)
    assert float(np.linalg.norm(one)) == pytest.approx(1.0, abs=1e-5)
    assert float(one @ model.embed(signals[0])) == pytest.approx(1.0, abs=1e-5)
    assert not np.array_equal(one, other)
    assert model.fingerprint() == load_speaker_model(folder).fingerprint()


def test_other_folders_and_names_are_refused(tiny_folder, monkeypatch) -> None:
    with pytest.raises(CheckpointError, match="ends in ForXVector"):
        load_speaker_model(tiny_folder("w2v_bert"))
    with pytest.raises(CatalogError, match="no speaker model's folder 'nowhere'"):
        load_speaker_model("nowhere")
    monkeypatch.setattr("speechadapt.models.speaker.bundled_models", dict)
    with pytest.raises(CatalogError, match="Give --speaker-model FOLDER"):
        load_speaker_model()
