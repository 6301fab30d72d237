"""Average the weights of models that share their start, into a model folder of its own.

Usage: average_models.py MODEL MODEL ... --output FOLDER

A uniform soup (arXiv 2203.05482, section 3): runs that start from the same weights often lie in one
basin, where the mean is better than its parts. Everything but the weights is copied from the first
model; whether the mean is better is for the dev sets to say.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from speechadapt.core.errors import CheckpointError, SpeechadaptError

WEIGHTS = "model.safetensors"


def average(models: Sequence[Path], output: Path) -> None:
    """Write the mean of several models' weights, computed in float32, stored as the first is.

    Args:
        models: Model folders with the same tensors.
        output: The folder to write; must not exist.

    Raises:
        CheckpointError: The models' tensors differ in name or shape, or `output` exists.
    """
    from safetensors.torch import load_file, save_file

    if output.exists():
        raise CheckpointError(f"{output} exists already; give a new folder.")
    loaded = [load_file(model / WEIGHTS) for model in models]
    shapes = [{name: tensor.shape for name, tensor in one.items()} for one in loaded]
    for model, shape in zip(models[1:], shapes[1:], strict=True):
        if shape != shapes[0]:
            other = sorted(set(shape.items()) ^ set(shapes[0].items()))[0][0]
            raise CheckpointError(f"'{other}' of {model} is not as in {models[0]}.")
    mean = {
        name: sum(one[name].float() for one in loaded).div(len(loaded)).to(tensor.dtype)
        for name, tensor in loaded[0].items()
    }
    shutil.copytree(models[0], output)
    save_file(mean, output / WEIGHTS, metadata={"format": "pt"})
    (output / "training.json").write_text(
        json.dumps({"step": _steps(models)[0], "steps": _steps(models)}), encoding="utf-8"
    )


def _steps(models: Sequence[Path]) -> list[int]:
    files = [model / "training.json" for model in models]
    return [json.loads(file.read_text())["step"] if file.is_file() else 0 for file in files]


def main(words: Sequence[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(words)
    try:
        average(options.models, options.output)
    except SpeechadaptError as error:
        print(f"average_models: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
