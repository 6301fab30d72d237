from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speechadapt.training.tasks.ctc import Config


def test_a_step_reaches_every_parameter_and_no_row_is_too_short(build: Callable[..., Any]) -> None:
    objective = build("ctc")
    loss, figures = objective(objective.batch(0, 0))
    loss.backward()
    assert torch.isfinite(loss)
    assert figures == {"too_short": 0.0}
    still = [name for name, part in objective.named_parameters() if part.grad is None]
    assert still == []


def test_rows_too_short_for_their_text_are_counted_and_give_no_gradient(
    build: Callable[..., Any],
) -> None:
    objective = build("ctc", "model.dropout=0")
    batch = objective.batch(0, 0)
    rows = len(batch["labels"])
    batch["label_lengths"][:] = batch["labels"].shape[1]
    batch["labels"] = torch.ones(rows, batch["labels"].shape[1], dtype=torch.long) * 3
    batch["lengths"][0] = 2
    loss, figures = objective(batch)
    loss.backward()
    assert figures["too_short"] >= 1 / rows
    grads = [part.grad for part in objective.parameters() if part.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_a_few_steps_on_one_batch_lower_the_loss(build: Callable[..., Any]) -> None:
    objective = build("ctc", "model.dropout=0")
    batch = objective.batch(0, 0)
    optimizer = torch.optim.AdamW(objective.parameters(), 0.02)
    losses = []
    for _ in range(12):
        loss, _ = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_a_model_to_start_from_gives_its_encoder_and_on_request_its_head(
    build: Callable[..., Any], tmp_path: Path
) -> None:
    first = build("ctc", "trainer.seed=1")
    nn.init.normal_(first.model.lm_head.weight)
    first.save(tmp_path)
    words = ("trainer.seed=2", f"init={tmp_path}")
    fresh, kept = build("ctc", *words), build("ctc", *words, "keep_head=true")
    halved = {name: part.half().float() for name, part in first.model.state_dict().items()}
    for name, part in kept.model.state_dict().items():
        assert torch.equal(part, halved[name]), name
    assert not torch.equal(fresh.model.lm_head.weight, kept.model.lm_head.weight)
    encoders = zip(fresh.encoder.parameters(), kept.encoder.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in encoders)


def test_settings_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (problem,) = (item for item in Config(init=str(tmp_path)).problems() if "init" in item)
    assert "holds no model.safetensors" in problem
    assert Config().sources() == {}
    assert Config(init="x").sources() == {"init/model.safetensors": Path("x/model.safetensors")}


def test_layer_drop_is_announced_to_data_parallelism(build: Callable[..., Any]) -> None:
    assert not build("ctc").skips_parameters
    assert build("ctc", "model.layer_drop=0.5").skips_parameters


def test_dev_sets_are_scored_by_corpus(build: Callable[..., Any]) -> None:
    objective = build("ctc")
    objective.eval()
    with torch.no_grad():
        scores = objective.evaluate()
    assert set(scores) == {"wer", "tones"}
    assert scores["wer"] == scores["tones"] >= 0
