"""Random tiny models in the ordinary on-disk format, for tests of whatever takes an encoder."""

from __future__ import annotations

from pathlib import Path

import torch

from speechadapt.encoders.catalog import family_module
from speechadapt.encoders.source import quiet_progress


def write_tiny(family: str, directory: Path, seed: int = 0) -> Path:
    """Write a model folder of one family: config, feature extractor and safetensors weights.

    The models have two layers of width 32, weights large enough for every part to matter, and
    windows of 2 s where the family has one. Whisper comes with its decoder, without a tokenizer.

    Args:
        family: A name of `catalog.families()`.
        directory: Is made.
        seed: Other seeds give other weights; the global random state is left alone.

    Returns:
        `directory`.

    Raises:
        CatalogError: There is no such family.
    """
    module = family_module(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, extractor = module.tiny()
    directory.mkdir(parents=True, exist_ok=True)
    with quiet_progress():
        model.save_pretrained(directory)
    extractor.save_pretrained(directory)
    return directory
