"""The cleaner: starts as the frozen encoder, trains its adapter alone, is saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.core.errors import CheckpointError
from speechadapt.encoders.source import fingerprint_module
from speechadapt.restoration.cleaner import cleaner_layer, load_cleaner, make_cleaner
from speechadapt.restoration.cleaner_loss import CleanerLossConfig, cleaner_errors
from speechadapt.restoration.cut import load_cut

METHODS = {"parallel": {"bottleneck": 8}, "lora": {"rank": 2}}


def train_a_little(cleaner, clean, worse) -> list[float]:
    features, lengths = cleaner.encoder.extract([worse])
    targets, _ = cleaner.encoder.extract([clean])
    optimizer = torch.optim.AdamW(cleaner.handle.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        wanted = cleaner.targets(targets, lengths)
        errors = cleaner_errors(cleaner.clean(features, lengths), wanted, lengths)
        loss = errors.weighted(CleanerLossConfig())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", sorted(METHODS))
def test_training_lowers_the_loss_and_leaves_the_base_alone(tiny_folder, signal, method) -> None:
    encoder = load_cut(tiny_folder("w2v_bert"), 2)
    roles = ("ffn2",) if method == "parallel" else ("ffn2.down",)
    cleaner = make_cleaner(encoder, method, METHODS[method], roles)
    before = fingerprint_module(encoder.model)
    clean = signal(6000)
    worse = clean + 0.05 * torch.randn(6000, generator=torch.Generator().manual_seed(0))
    untrained, _ = cleaner.encode([worse])
    features, lengths = encoder.extract([worse])
    assert torch.equal(untrained, cleaner.targets(features, lengths))
    losses = train_a_little(cleaner, clean, worse)
    assert losses[-1] < 0.95 * losses[0]
    assert fingerprint_module(encoder.model) == before
    assert not torch.equal(cleaner.encode([worse])[0], untrained)
    assert torch.equal(cleaner.targets(features, lengths), untrained)


def test_the_adapter_stands_at_the_last_feed_forward_of_every_kept_layer(tiny_folder) -> None:
    cleaner = make_cleaner(load_cut(tiny_folder("w2v_bert"), 2), config={"bottleneck": 8})
    assert [site.role for site in cleaner.handle.sites] == ["layer.0.ffn2", "layer.1.ffn2"]
    # a layer norm, two projections with bias
    each = 2 * 32 + (32 * 8 + 8) + (8 * 32 + 32)
    assert cleaner.handle.num_parameters() == 2 * each
    ups = [value for key, value in cleaner.handle.named_parameters() if ".up." in key]
    assert ups
    assert not any(value.any() for value in ups)


def test_a_saved_cleaner_loads_onto_the_same_cut(tiny_folder, signal, tmp_path: Path) -> None:
    folder = tiny_folder("w2v_bert")
    cleaner = make_cleaner(load_cut(folder, 1), config={"bottleneck": 8})
    train_a_little(cleaner, signal(6000), signal(6000, 1))
    cleaner.save(tmp_path / "cleaner")
    assert cleaner_layer(tmp_path / "cleaner") == 1
    again = load_cleaner(tmp_path / "cleaner", folder)
    assert again.layer == 1
    assert len(again.encoder.model.encoder.layers) == 1
    clips = [signal(5000, 2), signal(3000, 3)]
    frames, lengths = cleaner.encode(clips)
    same, counts = again.encode(clips)
    assert torch.equal(frames, same)
    assert torch.equal(lengths, counts)
    assert not any(one.requires_grad for one in again.handle.parameters())


def test_other_adapters_and_other_bases_are_refused(tiny_folder, tmp_path: Path) -> None:
    cleaner = make_cleaner(load_cut(tiny_folder("w2v_bert"), 1), config={"bottleneck": 8})
    store.save(cleaner.handle, tmp_path / "plain")
    with pytest.raises(CheckpointError, match="names no layer"):
        cleaner_layer(tmp_path / "plain")
    cleaner.save(tmp_path / "cleaner")
    from speechadapt.encoders.tiny import write_tiny

    other = write_tiny("w2v_bert", tmp_path / "other", seed=5)
    with pytest.raises(CheckpointError, match="was trained on"):
        load_cleaner(tmp_path / "cleaner", other)
