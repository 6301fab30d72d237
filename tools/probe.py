"""Train a linear classifier on a frozen encoder's mean frame and score it on a labelled corpus.

Usage: probe.py --model NAME_OR_FOLDER [--data ROOT] [--corpus esc10] [--split dev|test]
                [--output FILE]

The frames of every layer are averaged over time; layer and weight decay are chosen by
leave-one-fold-out on the train split (`--split dev` prints that and stops), the classifier is then
fitted to the whole of it and scored on the test split.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_facts import describe_command
from eval_pack import data_root, weights_hash

from speechadapt.core.errors import SpeechadaptError
from speechadapt.core.files import atomic_write_json

DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class Choice:
    """A setting of the probe and its score.

    Args:
        layer: Number of the hidden state, 0 being what enters the first layer.
        decay: Weight decay.
        accuracy: Mean over the held-out folds.
    """

    layer: int
    decay: float
    accuracy: float


def read_states(
    model: str, root: Path, corpus: str, split: str
) -> tuple[Any, list[str], list[Any]]:
    """Return the mean hidden states `[clips, layers, dim]`, the labels and the folds of a split."""
    import soxr
    import torch

    from speechadapt.data.corpora.pack import load_corpus, read_audio
    from speechadapt.encoders.catalog import load_encoder
    from speechadapt.models.card import bundled_models

    encoder = load_encoder(bundled_models().get(model, Path(model)), offline=True)
    rows: list[Any] = []
    utterances = load_corpus(root, corpus, split)
    for utterance in utterances:
        samples, rate = read_audio(root, utterance)
        if rate != encoder.sample_rate:
            samples = soxr.resample(samples, rate, encoder.sample_rate)
        clip = torch.from_numpy(samples)
        if encoder.window_s is not None:
            clip = clip[: int(encoder.window_s * encoder.sample_rate)]
        features, _ = encoder.extract([clip])
        with torch.inference_mode():
            states = encoder.model(features, output_hidden_states=True).hidden_states
        rows.append(torch.stack([state[0].float().mean(0) for state in states]))
    labels = [str(utterance.extra["label"]) for utterance in utterances]
    return torch.stack(rows), labels, [utterance.extra["fold"] for utterance in utterances]


def fit_and_predict(train: Any, targets: Any, test: Any, decay: float) -> Any:
    """Fit a multinomial logistic regression and return its predictions.

    Args:
        train: `[clips, dim]`.
        targets: Class numbers.
        test: `[clips, dim]`.
        decay: Weight decay on the standardised inputs.
    """
    import torch
    from torch.nn import functional

    mean, deviation = train.mean(0), train.std(0) + 1e-6
    inputs, held = (train - mean) / deviation, (test - mean) / deviation
    linear = torch.nn.Linear(inputs.shape[1], int(targets.max()) + 1)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimiser.zero_grad()
        loss = functional.cross_entropy(linear(inputs), targets)
        loss = loss + decay * linear.weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return linear(held).argmax(1)


def choose(states: Any, targets: Any, folds: Sequence[Any]) -> Choice:
    """Pick layer and decay by leave-one-fold-out; the earliest of equals wins."""
    import torch

    names = torch.tensor([sorted(set(folds)).index(fold) for fold in folds])
    best: Choice | None = None
    for layer in range(states.shape[1]):
        for decay in DECAYS:
            right = 0
            for fold in names.unique():
                kept, held = names != fold, names == fold
                found = fit_and_predict(
                    states[kept, layer], targets[kept], states[held, layer], decay
                )
                right += int((found == targets[held]).sum())
            choice = Choice(layer, decay, right / len(targets))
            if best is None or choice.accuracy > best.accuracy:
                best = choice
    assert best is not None
    return best


def run(options: argparse.Namespace, words: Sequence[str]) -> int:
    """Choose, and on `--split test` score once."""
    import torch

    from speechadapt.metrics.bootstrap import bootstrap_ratio
    from speechadapt.metrics.speed import describe_environment

    root = data_root(options.data)
    states, labels, folds = read_states(options.model, root, options.corpus, "train")
    classes = sorted(set(labels))
    targets = torch.tensor([classes.index(label) for label in labels])
    choice = choose(states, targets, folds)
    chosen = (
        f"layer {choice.layer} of {states.shape[1] - 1} and decay {choice.decay:g} chosen on "
        f"train, leave one fold out ({choice.accuracy:.1%})"
    )
    print(f"{len(classes)} classes; {chosen}")
    if options.split == "dev":
        return 0
    held, answers, _ = read_states(options.model, root, options.corpus, "test")
    found = fit_and_predict(states[:, choice.layer], targets, held[:, choice.layer], choice.decay)
    right = [int(classes[index] == answer) for index, answer in zip(found, answers, strict=True)]
    interval = bootstrap_ratio(right, [1] * len(right))
    print(
        f"{options.corpus} test: {interval.estimate:.1%} of {len(right)} "
        f"[{interval.low:.1%}, {interval.high:.1%}]"
    )
    if options.output is not None:
        row = {
            "set": f"{options.corpus}/test, linear probe",
            "headline": "accuracy",
            "accuracy": interval.estimate,
            "accuracy_interval": {"low": interval.low, "high": interval.high},
            "items": len(right),
            "note": chosen,
        }
        scored = {
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "command": describe_command("probe.py", words, pack=True),
            "weights_sha256": weights_hash(options.model),
            "environment": describe_environment("cpu", torch.float32, 1).line,
            "sets": [row],
        }
        atomic_write_json(options.output, scored)
    return 0


def main(words: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    words = sys.argv[1:] if words is None else words
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--corpus", default="esc10")
    parser.add_argument("--split", choices=["dev", "test"], default="dev")
    parser.add_argument("--output", type=Path)
    try:
        return run(parser.parse_args(words), words)
    except SpeechadaptError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
