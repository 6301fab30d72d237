from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def objective(build: Callable[..., Any]) -> Any:
    """Return a tiny objective, built once."""
    return build("seq2seq")


def test_tokens_are_prefix_text_and_end_shifted_by_one(objective: Any) -> None:
    inputs, labels = objective._tokens(["two three", "one"])
    end = objective.model.config.eos_token_id
    written = objective.tokenizer(" two three", add_special_tokens=False)["input_ids"]
    assert inputs[0].tolist() == [*objective.prefix, *written]
    assert labels[0].tolist() == [*objective.prefix[1:], *written, end]
    short = len(objective.prefix) + len(
        objective.tokenizer(" one", add_special_tokens=False)["input_ids"]
    )
    assert (labels[1] == -100).nonzero().flatten().tolist() == list(range(short, len(labels[1])))
    assert inputs[1, short:].unique().tolist() in ([end], [])


def test_a_row_without_speech_asks_for_no_speech_and_for_an_empty_text(objective: Any) -> None:
    inputs, labels = objective._tokens([""])
    end = objective.model.config.eos_token_id
    assert inputs[0].tolist() == objective.prefix
    assert labels[0].tolist() == [objective.no_speech, *objective.prefix[2:], end]


def test_a_text_longer_than_the_decoder_is_cut(objective: Any) -> None:
    most = objective.config.model.target_tokens
    inputs, labels = objective._tokens(["two three " * most])
    assert inputs.shape == labels.shape == (1, most)
    assert torch.equal(inputs[0, 1:], labels[0, :-1])


def test_a_share_of_the_rows_holds_noise_alone(build: Callable[..., Any]) -> None:
    def silent(probability: float) -> list[bool]:
        noisy = build("seq2seq", f"no_speech_prob={probability}")
        batches = [noisy.batch(step, 0) for step in range(4)]
        return [bool(count == 0) for batch in batches for count in batch["symbol_lengths"]]

    assert not any(silent(0.0))
    assert all(silent(1.0))


def test_the_window_is_padded_with_the_floor_of_the_features(objective: Any) -> None:
    batch = objective.batch(0, 0)
    features, lengths = batch["features"], batch["lengths"]
    assert features.shape[1:] == (80, 200)
    for row, length in zip(features, lengths.tolist(), strict=True):
        assert 0 < length <= 200
        assert row[:, length:].unique().numel() <= 1


def test_a_step_reaches_every_trained_parameter(objective: Any) -> None:
    objective.train()
    loss, figures = objective(objective.batch(0, 0))
    loss.backward()
    still = [
        name
        for name, part in objective.named_parameters()
        if part.requires_grad and part.grad is None
    ]
    assert still == []
    weighed = 0.7 * figures["attention"] + 0.3 * figures["ctc"]
    assert float(loss.detach()) == pytest.approx(weighed, rel=1e-5)


def test_a_batch_is_the_same_again(build: Callable[..., Any], objective: Any) -> None:
    torch.manual_seed(5)
    first, again = objective.batch(2, 0), build("seq2seq").batch(2, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_dev_sets_are_scored_by_corpus(objective: Any) -> None:
    objective.eval()
    with torch.no_grad():
        scores = objective.evaluate()
    assert set(scores) == {"wer", "tones"}


def test_a_run_starts_from_a_model_and_its_tokenizer(
    build: Callable[..., Any], objective: Any, tmp_path: Path
) -> None:
    objective.save(tmp_path)
    started = build("seq2seq", f"init={tmp_path}", "trainer.seed=9")
    expected = objective.model.state_dict()
    for name, value in started.model.state_dict().items():
        assert torch.equal(value, expected[name].half().float()), name
    assert started.tokenizer.get_vocab() == objective.tokenizer.get_vocab()
