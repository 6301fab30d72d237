"""Score a feature cleaner alone: how near its features are to clean ones, and what is read in them.

Usage: cleaner_quality.py --cleaner FOLDER [--base MODEL] [--data ROOT] [--split dev|test]
                          [--most N] [--output FILE]

The cases are recordings of known words, degraded by the preset `miipher`, seed 0 (see
`restoration_cases.py`), so many of each set. Relative L1 is the sum of absolute errors over the sum
of absolute clean features at the cleaner's layer. Words are those of the base's own CTC head: the
layers above the cleaner's run, frozen, on clean, degraded and cleaned features alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_facts import describe_command, environment, result, run_tool
from eval_pack import data_root, weights_hash
from restoration_cases import PRESET, SPOKEN, Case, spoken_cases
from restoration_words import as_figure, errors_ratio, heard, score_sides

from speechadapt.core.errors import ConfigError
from speechadapt.core.files import hash_file
from speechadapt.core.shapes import Frames
from speechadapt.metrics.bootstrap import bootstrap_ratio
from speechadapt.metrics.report import markdown_table, to_json
from speechadapt.metrics.wer import Pair
from speechadapt.models.build import find_model, load
from speechadapt.models.recogniser import Recogniser
from speechadapt.restoration.cleaner import Cleaner, load_cleaner
from speechadapt.restoration.frames import framed

SIDES = ("clean", "degraded", "cleaned")


@dataclass
class Gap:
    """Sums over the recordings of one side.

    Args:
        errors: Absolute errors of each recording, summed.
        variances: Variance over time of each recording's features, summed over dimensions.
    """

    errors: list[float] = field(default_factory=list)
    variances: list[float] = field(default_factory=list)

    def add(self, frames: Frames, clean: Frames) -> None:
        """Add one recording."""
        self.errors.append(float((frames - clean).abs().sum()))
        self.variances.append(float((frames - frames.mean(0)).square().sum()))


def feature_gaps(cleaner: Cleaner, cases: Sequence[Case]) -> tuple[dict[str, Gap], list[float]]:
    """Compare features with clean ones; the second value is each recording's clean size."""
    gaps, sizes = {side: Gap() for side in SIDES}, []
    encoder = cleaner.encoder
    for case in cases:
        clean, worse = (
            framed(torch.from_numpy(signal.astype(np.float32)), encoder)
            for signal in (case.clean, case.degraded)
        )
        features, lengths = encoder.extract([clean, worse])
        both = cleaner.targets(features, lengths)
        made = {"clean": both[0], "degraded": both[1], "cleaned": cleaner.encode([worse])[0][0]}
        for side, frames in made.items():
            gaps[side].add(frames, both[0])
        sizes.append(float(both[0].abs().sum()))
    return gaps, sizes


def reads_cleaned(recogniser: Recogniser, cleaner: Cleaner) -> Callable[[], None]:
    """Put the cleaner's features in the place of the recogniser's own; return what undoes it."""
    encode = recogniser.encoder.encode
    layer = recogniser.encoder.model.get_submodule(f"encoder.layers.{cleaner.layer - 1}")
    made: list[Frames] = []

    def replaced(module: Any, inputs: Any, output: Any) -> Any:
        return (made[0], *output[1:]) if isinstance(output, tuple) else made[0]

    def cleaned(waveforms: Any) -> Any:
        made[:] = [cleaner.encode(waveforms)[0]]
        return encode(waveforms)

    hook = layer.register_forward_hook(replaced)
    recogniser.encoder.encode = cleaned  # type: ignore[method-assign]

    def undo() -> None:
        hook.remove()
        recogniser.encoder.encode = encode  # type: ignore[method-assign]

    return undo


def words_by_side(
    recogniser: Recogniser, cleaner: Cleaner, cases: Sequence[Case]
) -> dict[str, list[Pair]]:
    """Return what the base's own head reads in clean, degraded and cleaned features."""
    worse = [one.degraded for one in cases]
    found = {
        "clean": heard(recogniser, cases, [one.clean for one in cases]),
        "degraded": heard(recogniser, cases, worse),
    }
    undo = reads_cleaned(recogniser, cleaner)
    try:
        return found | {"cleaned": heard(recogniser, cases, worse)}
    finally:
        undo()


def feature_figures(
    gaps: Mapping[str, Gap], sizes: Sequence[float], cases: Sequence[Case]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the share of the error that is left, and relative L1 and variances of each side."""
    speakers = [one.speaker for one in cases]
    left = bootstrap_ratio(gaps["cleaned"].errors, gaps["degraded"].errors, speakers)
    details = {
        side: {
            "relative_l1": sum(gap.errors) / sum(sizes),
            "variance_ratio": sum(gap.variances) / sum(gaps["clean"].variances),
        }
        for side, gap in gaps.items()
    }
    return [as_figure("cleaner_l1", left, "all recordings together")], details


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measure everything, print the tables, and return it as JSON types."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    root = data_root(arguments.data)
    recogniser: object = load(arguments.base)
    if not isinstance(recogniser, Recogniser):
        raise ConfigError(f"--base '{arguments.base}' is no recogniser.")
    cleaner = load_cleaner(arguments.cleaner, find_model(arguments.base))
    cases = list(spoken_cases(root, arguments.split, arguments.most))
    gaps, sizes = feature_gaps(cleaner, cases)
    figures, features = feature_figures(gaps, sizes, cases)
    for side, found in features.items():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        print(f"{side}: {shown}")
    scores = score_sides(cases, words_by_side(recogniser, cleaner, cases), arguments.normaliser)
    print(markdown_table([one for group in scores.values() for one in group.values()]))
    sides = scores["all"]
    ratio = errors_ratio(sides["cleaned"], sides["degraded"])
    details = {
        "preset": PRESET,
        "layer": cleaner.layer,
        "base_sha256": weights_hash(arguments.base),
        "cleaner_sha256": hash_file(arguments.cleaner / "adapter_model.safetensors"),
        "features": features,
        "sets": [to_json(one) for group in scores.values() for one in group.values()],
    }
    facts = environment("cpu", "float32", torch.get_num_threads(), "1")
    figures.append(as_figure("cleaner_words", ratio, "all sets together"))
    command = describe_command("cleaner_quality.py", words, pack=True)
    return result(command, facts, figures, details)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cleaner", type=Path, required=True, help="folder of a saved cleaner")
    parser.add_argument("--base", default="mini-usm", help="the model whose encoder it cleans")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--split", choices=sorted(SPOKEN), default="dev")
    parser.add_argument("--most", type=int, default=10, metavar="N", help="so many of a set")
    parser.add_argument("--normaliser", default="verbatim")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: torch's default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_tool("cleaner_quality", sys.argv[1:] if given is None else given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())
