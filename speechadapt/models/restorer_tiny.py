"""A random tiny restorer on disk, for tests of whatever takes one."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from speechadapt.adapters.handle import base_of
from speechadapt.encoders.tiny import write_tiny
from speechadapt.models.restorer_folder import assemble
from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import make_vocoder, save_vocoder

_RATE = 16000


def write_tiny_restorer(folder: Path, seed: int = 0, half: bool = False) -> Path:
    """Write a restorer of one layer at 50 Hz with an inverse-STFT vocoder; what it says is noise.

    Args:
        folder: Is made.
        seed: Other seeds give other weights; the global random state is left alone.
        half: Store it in half precision.

    Returns:
        `folder`.
    """
    with TemporaryDirectory() as temporary, torch.random.fork_rng(devices=[]):
        root = Path(temporary)
        encoder = load_cut(write_tiny("w2v_bert", root / "base", seed), 1)
        torch.manual_seed(seed)
        cleaner = make_cleaner(encoder, config={"bottleneck": 4})
        for parameter in cleaner.handle.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        cleaner.save(root / "cleaner")
        speech = Speech(encoder.dim, encoder.frame_rate, _RATE)
        vocoder = make_vocoder(speech, IstftConfig(width=8, layers=1))
        save_vocoder(vocoder, root / "vocoder", {"base": base_of(encoder), "layer": 1})
        return assemble(root / "cleaner", root / "vocoder", folder, base=root / "base", half=half)
