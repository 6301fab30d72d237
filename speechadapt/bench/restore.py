"""How fast restorers are, and how much memory they take, also at sizes without trained weights.

Weights do not change the cost of anything here, so random ones of the right shapes are measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from speechadapt.bench.restore_options import RestoreBench
from speechadapt.core.memory import resident_bytes
from speechadapt.encoders.w2v_bert import W2vBertEncoder
from speechadapt.metrics.speed import describe_environment
from speechadapt.models.restorer import Restorer
from speechadapt.models.restorer_folder import find_restorer, load_restorer
from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.frames import framed
from speechadapt.restoration.istft import IstftConfig
from speechadapt.restoration.request import RestoreConfig
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import make_vocoder
from speechadapt.restoration.wavefit import WaveFitConfig


@dataclass(frozen=True)
class Size:
    """Shapes of a restorer.

    Args:
        dim: Width of the encoder.
        feed_forward: Inner width of its feed-forwards.
        heads: Attention heads.
        layers: Layers that are kept.
        stride: Rows of 10 ms in a frame.
        bottleneck: Of the adapters.
        sample_rate: Of what is made, in Hz.
        wavefit: Shape of a WaveFit.
        istft: Shape of an inverse-STFT vocoder.
        kernel: Of the depthwise convolution.
        positions: How the encoder knows positions, as transformers names it.
    """

    dim: int
    feed_forward: int
    heads: int
    layers: int
    stride: int
    bottleneck: int
    sample_rate: int
    wavefit: WaveFitConfig
    istft: IstftConfig
    kernel: int = 31
    positions: str = "relative_key"


SIZES = {
    # w2v-BERT 2.0, and the vocoder of the paper at 50 Hz
    "full": Size(
        dim=1024,
        feed_forward=4096,
        heads=16,
        layers=8,
        stride=2,
        bottleneck=1024,
        sample_rate=24000,
        wavefit=WaveFitConfig(upsample=2),
        istft=IstftConfig(width=512, layers=8, upsample=2),
    ),
    # mini-usm, and the vocoders of recipes/restore
    "mini": Size(
        dim=192,
        feed_forward=544,
        heads=4,
        layers=2,
        stride=3,
        bottleneck=256,
        sample_rate=16000,
        wavefit=WaveFitConfig(
            upsample=3,
            factors=(5, 4, 4, 2),
            channels=(96, 64, 32, 16),
            down_channels=(8, 16, 32, 64),
            width=192,
            iterations=3,
        ),
        istft=IstftConfig(upsample=3),
        kernel=15,
        positions="rotary",
    ),
    "tiny": Size(
        dim=16,
        feed_forward=16,
        heads=2,
        layers=1,
        stride=2,
        bottleneck=4,
        sample_rate=16000,
        wavefit=WaveFitConfig(
            upsample=2,
            factors=(5, 8, 4),
            channels=(4, 4, 2),
            down_channels=(2, 4, 4),
            width=8,
            layers=1,
            iterations=1,
        ),
        istft=IstftConfig(width=8, layers=1),
        kernel=3,
    ),
}


def random_restorer(size: Size, vocoder: str) -> Restorer:
    """Build a restorer of random weights.

    Args:
        size: Its shapes.
        vocoder: `wavefit` or `istft`.
    """
    extractor = SeamlessM4TFeatureExtractor(stride=size.stride)
    config = Wav2Vec2BertConfig(
        hidden_size=size.dim,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=size.feed_forward,
        feature_projection_input_dim=size.stride * extractor.num_mel_bins,
        conv_depthwise_kernel_size=size.kernel,
        position_embeddings_type=size.positions,
        apply_spec_augment=False,
        mask_time_prob=0.0,
    )
    encoder = W2vBertEncoder(Wav2Vec2BertModel(config), extractor)
    encoder.freeze()
    cleaner = make_cleaner(encoder, config={"bottleneck": size.bottleneck})
    shape = size.wavefit if vocoder == "wavefit" else size.istft
    speech = Speech(encoder.dim, encoder.frame_rate, size.sample_rate)
    return Restorer(cleaner, make_vocoder(speech, shape).eval())


def measure_restorer(options: RestoreBench) -> dict[str, Any]:
    """Measure a restorer end to end, and its two halves alone.

    Args:
        options: What was asked for.

    Returns:
        Seconds and real-time factors (medians), parameters by part, memory, and what it ran on.

    Raises:
        CatalogError: There is no such model.
        CheckpointError: The folder holds no restorer.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.model is not None:
        restorer = load_restorer(find_restorer(options.model))
    else:
        restorer = random_restorer(SIZES[options.size], options.vocoder)
    restorer.to(options.device, getattr(torch, options.dtype))
    config = RestoreConfig(options.iterations)
    signal = _noise(options.seconds, restorer.input_rate)
    waveform = framed(torch.from_numpy(signal), restorer.cleaner.encoder)

    def whole() -> None:
        restorer.restore(signal, restorer.input_rate, config)

    def encode() -> torch.Tensor:
        return restorer.cleaner.encode([waveform])[0]

    @torch.no_grad()
    def vocode(frames: torch.Tensor) -> None:
        restorer.vocoder(frames, options.iterations, torch.Generator().manual_seed(0))

    frames = encode()
    seconds = {
        "end to end": _median(whole, options),
        "encoder and cleaner": _median(encode, options),
        "vocoder": _median(lambda: vocode(frames), options),
    }
    parts = {
        "encoder": restorer.cleaner.encoder.model,
        "cleaner": restorer.cleaner.trained,
        "vocoder": restorer.vocoder,
    }
    note = f"one recording of {options.seconds:g} s"
    return {
        "options": asdict(options),
        "audio_s": options.seconds,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "rtf": {name: round(value / options.seconds, 5) for name, value in seconds.items()},
        "parameters": {
            name: sum(one.numel() for one in part.parameters()) for name, part in parts.items()
        },
        "memory_mb": _memory_mb(options.device),
        "environment": asdict(describe_environment(options.device, options.dtype, note)),
    }


def lines(report: dict[str, Any]) -> str:
    """Return a report as a Markdown table.

    Args:
        report: What `measure_restorer` gave.
    """
    rows = ["| part | parameters | seconds | RTF |", "|---|---:|---:|---:|"]
    counts = report["parameters"]
    counted = {
        "end to end": sum(counts.values()),
        "encoder and cleaner": counts["encoder"] + counts["cleaner"],
        "vocoder": counts["vocoder"],
    }
    for name, count in counted.items():
        seconds, rtf = report["seconds"][name], report["rtf"][name]
        rows.append(f"| {name} | {count / 1e6:.2f} M | {seconds:.3f} | {rtf:.4f} |")
    place = report["environment"]
    text = f"{place['device']}, {place['dtype']}, {place['threads']} threads, {place['batch']}"
    peak = report["memory_mb"]
    memory = "Peak memory not told by this system" if peak is None else f"Peak memory {peak:.0f} MB"
    return "\n".join([*rows, "", f"{memory}; {text}."])


def _median(call: Callable[[], object], options: RestoreBench) -> float:
    times = []
    for _ in range(options.rounds + 1):
        began = time.perf_counter()
        call()
        if options.device.startswith("cuda"):
            torch.cuda.synchronize(options.device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _memory_mb(device: str) -> float | None:
    """Return the most memory held: the accelerator's, or this process's where the system says."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    peak = resident_bytes("VmHWM")
    return None if peak is None else peak / 1e6


def _noise(seconds: float, sample_rate: int) -> np.ndarray:
    random = np.random.default_rng(0)
    made = 0.1 * random.standard_normal(round(seconds * sample_rate))
    return np.asarray(made, dtype=np.float32)
