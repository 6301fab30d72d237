from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import Wav2Vec2BertForCTC

from speechadapt.adapters.attach import active
from speechadapt.encoders.w2v_bert import W2vBertEncoder
from speechadapt.training.tasks.best_rq import (
    QuantiserConfig,
    RandomProjectionQuantiser,
    mask_starts_to_spans,
)

SMALL = QuantiserConfig(codes=32, dim=8)


def test_the_quantiser_is_a_function_of_its_seed_alone() -> None:
    features = torch.randn(2, 30, 40, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first = RandomProjectionQuantiser(40, SMALL, seed=7)
    torch.manual_seed(2)
    again, other = (RandomProjectionQuantiser(40, SMALL, seed=seed) for seed in (7, 8))
    assert torch.equal(first(features), again(features))
    assert not torch.equal(first(features), other(features))


def test_the_code_is_the_nearest_vector_of_the_codebook() -> None:
    quantiser = RandomProjectionQuantiser(40, SMALL, seed=7)
    features = torch.randn(1, 10, 40)
    projected = torch.nn.functional.normalize(features @ quantiser.projection, dim=-1)
    distances = torch.cdist(projected[0], quantiser.codebook)
    assert quantiser(features)[0].tolist() == distances.argmin(-1).tolist()


def test_nothing_in_the_quantiser_is_trained(build: Callable[..., Any]) -> None:
    objective = build("best_rq")
    assert list(objective.quantiser.parameters()) == []
    before = {name: part.clone() for name, part in objective.quantiser.named_buffers()}
    optimizer = torch.optim.AdamW(objective.parameters(), 0.1)
    loss, figures = objective(objective.batch(0, 0))
    loss.backward()
    optimizer.step()
    for name, part in objective.quantiser.named_buffers():
        assert torch.equal(part, before[name])
    assert 0 < figures["codes_used"] <= 1
    assert all(part.grad is not None for part in objective.parameters())


def test_a_start_becomes_a_stretch_and_stretches_may_overlap() -> None:
    starts = torch.zeros(1, 10, dtype=torch.bool)
    starts[0, [1, 3, 9]] = True
    mask = mask_starts_to_spans(starts, 3)
    assert mask[0].int().tolist() == [0, 1, 1, 1, 1, 1, 0, 0, 0, 1]


def test_every_row_is_masked_somewhere_and_never_in_its_padding(build: Callable[..., Any]) -> None:
    objective = build("best_rq", "quantiser.mask_prob=0")
    for step in range(5):
        batch = objective.batch(step, 0)
        assert batch["mask"].any(1).all()
        places = torch.arange(batch["mask"].shape[1])
        assert not batch["mask"][places >= batch["lengths"][:, None]].any()


def test_masks_and_noise_are_a_function_of_seed_and_step(build: Callable[..., Any]) -> None:
    one, other = build("best_rq"), build("best_rq")
    torch.manual_seed(0)
    first = one.batch(3, 0)
    torch.manual_seed(1)
    again = other.batch(3, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["noise"][:1, :1], one.batch(4, 0)["noise"][:1, :1])


def test_what_is_hidden_does_not_reach_the_encoder(build: Callable[..., Any]) -> None:
    objective = build("best_rq", "model.dropout=0")
    objective.eval()
    batch = objective.batch(0, 0)
    seen: list[torch.Tensor] = []
    projection = objective.model.feature_projection
    hook = projection.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    objective(batch)
    hook.remove()
    assert torch.equal(seen[0][batch["mask"]], batch["noise"][batch["mask"]])
    assert torch.equal(seen[0][~batch["mask"]], batch["features"][~batch["mask"]])


def test_what_is_saved_is_a_model_a_recogniser_can_start_from(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    objective = build("best_rq")
    objective.save(tmp_path)
    loaded = Wav2Vec2BertForCTC.from_pretrained(tmp_path, use_safetensors=True)
    for name, part in objective.model.state_dict().items():
        assert torch.equal(loaded.wav2vec2_bert.state_dict()[name], part.half())


def test_the_dev_score_is_the_same_each_time(build: Callable[..., Any]) -> None:
    objective = build("best_rq")
    objective.eval()
    with torch.no_grad():
        assert objective.evaluate() == objective.evaluate()


def test_trained_through_an_adapter_the_model_that_leaves_holds_what_it_learned(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    words = ("method=lte", "adapter.heads=2", "adapter.rank=4", "adapter.merge_every=1")
    objective = build("best_rq", *words, "model.dropout=0")
    replaced = objective.model.encoder.layers[0].ffn1.output_dense.weight
    projection = objective.model.feature_projection.projection.weight
    drawn = replaced.detach().clone(), projection.detach().clone()
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], 0.01)
    batch = objective.batch(0, 0)
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        loss, _ = objective(batch)
        loss.backward()
        optimizer.step()
        objective.after_step(step + 1, 0.1)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.98 * losses[0]
    assert torch.equal(replaced, drawn[0])
    assert not torch.equal(projection, drawn[1])
    objective.save(tmp_path / "last")
    objective.finish(tmp_path)
    assert torch.equal(replaced, drawn[0])
    loaded = W2vBertEncoder(
        Wav2Vec2BertForCTC.from_pretrained(
            tmp_path / "last", use_safetensors=True, dtype=torch.float32
        ).wav2vec2_bert,
        objective.extractor,
    )
    objective.eval()
    loaded.model.eval()
    features = batch["features"], batch["lengths"]
    with torch.no_grad():
        kept, found = objective._encoder[0](*features)[0], loaded(*features)[0]
    valid = torch.arange(kept.shape[1])[None] < batch["lengths"][:, None]
    # saved in fp16, whose rounding some entries show most
    assert float((found[valid] - kept[valid]).norm() / kept[valid].norm()) < 0.01
    with torch.no_grad(), active(objective._encoder[0], None):
        untrained = objective._encoder[0](*features)[0]
    assert float((untrained[valid] - kept[valid]).norm() / kept[valid].norm()) > 0.05
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"] == 6
    assert report["figures"]["merges"] == 6
