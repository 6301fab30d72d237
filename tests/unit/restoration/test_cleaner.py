"""The cleaner: starts as the frozen encoder, trains its adapter alone, is saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from speechadapt.adapters import store
from speechadapt.core.errors import CheckpointError
from speechadapt.core.files import atomic_write_json, read_json
from speechadapt.encoders.source import fingerprint_module
from speechadapt.restoration.cleaner import (
    attach_cleaner,
    cleaner_layer,
    load_cleaner,
    make_cleaner,
)
from speechadapt.restoration.cleaner_loss import CleanerLossConfig, cleaner_errors
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.front import FrontConfig

METHODS = {"parallel": {"bottleneck": 8}, "lora": {"rank": 2}}
FRONT = FrontConfig("convolution", width=8, layers=1, kernel=3)


def train_a_little(cleaner, clean, worse) -> list[float]:
    features, lengths = cleaner.extract([worse])
    targets, _ = cleaner.encoder.extract([clean])
    optimizer = torch.optim.AdamW(cleaner.trained.parameters(), lr=1e-2)
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


@pytest.mark.parametrize("kind", ["statistics", "convolution"])
def test_a_front_is_trained_saved_and_loaded_with_the_adapter(
    tiny_folder, signal, tmp_path: Path, kind: str
) -> None:
    folder = tiny_folder("w2v_bert")
    torch.manual_seed(0)
    config = FrontConfig(kind, width=8, layers=1, kernel=3)
    cleaner = make_cleaner(load_cut(folder, 1), config={"bottleneck": 8}, front=config)
    before = fingerprint_module(cleaner.encoder.model)
    plain = make_cleaner(load_cut(folder, 1), config={"bottleneck": 8})
    clips = [signal(6400), signal(4000, 3)]
    untrained = cleaner.encode(clips)[0][0]
    torch.testing.assert_close(untrained, plain.encode(clips)[0][0], atol=0.05, rtol=0.05)
    losses = train_a_little(cleaner, signal(6000), signal(6000, 1))
    assert losses[-1] < losses[0]
    assert fingerprint_module(cleaner.encoder.model) == before
    assert cleaner.front.out.weight.any()
    cleaner.save(tmp_path / "cleaner")
    again = load_cleaner(tmp_path / "cleaner", folder)
    assert again.front.config == config
    assert torch.equal(again.encode(clips)[0], cleaner.encode(clips)[0])
    assert not any(one.requires_grad or one.dtype.is_complex for one in again.front.parameters())
    untouched, lengths = again.encoder.extract(clips)
    assert torch.equal(again.targets(untouched, lengths), plain.targets(untouched, lengths))


def test_a_front_moves_with_its_encoder(tiny_folder, signal) -> None:
    cleaner = make_cleaner(load_cut(tiny_folder("w2v_bert"), 1), front=FRONT)
    single = cleaner.encode([signal(6400)])[0]
    cleaner.encoder.to(torch.float64)
    assert cleaner.front.out.weight.dtype == torch.float64
    torch.testing.assert_close(cleaner.encode([signal(6400)])[0].float(), single)


def test_a_cleaner_saved_without_a_front_has_none(tiny_folder, tmp_path: Path) -> None:
    folder = tiny_folder("w2v_bert")
    make_cleaner(load_cut(folder, 1), config={"bottleneck": 8}).save(tmp_path)
    assert store.read(tmp_path).details["head"] == {"kind": "cleaner", "layer": 1}
    loaded = load_cleaner(tmp_path, folder)
    assert loaded.front is None
    assert list(loaded.trained) == ["adapter"]


def test_a_front_that_is_damaged_or_unknown_is_refused(tiny_folder, tmp_path: Path) -> None:
    folder = tiny_folder("w2v_bert")
    cleaner = make_cleaner(load_cut(folder, 1), config={"bottleneck": 8}, front=FRONT)
    cleaner.save(tmp_path)
    said = read_json(tmp_path / store.CONFIG)
    said["head"]["front"]["layers"] = 2
    atomic_write_json(tmp_path / store.CONFIG, said)
    with pytest.raises(CheckpointError, match=r"tensors of the front, but lacks"):
        load_cleaner(tmp_path, folder)
    said["head"]["front"]["kind"] = "wavelets"
    atomic_write_json(tmp_path / store.CONFIG, said)
    with pytest.raises(CheckpointError, match=r"cannot be built: front\.kind"):
        attach_cleaner(load_cut(folder, 1), tmp_path)
