"""Time a Whisper encoder at native length against its padded window, on random weights.

Weights do not change the cost, so the geometry alone counts; the default is Whisper-small's. Both
sides share one set of weights, take turns (which goes first alternates), and are compared by the
ratio of their medians with a bootstrap interval over the rounds. Prints a table and one JSON
object. Exit code 1 where the ratio misses the bar.

    python tools/bench_native.py --seconds 5 --threads 2
    python tools/bench_native.py --quick        # a smoke test: small geometry, no bar
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from bench_claims import CLAIMS
from bench_facts import describe_command, environment
from bench_facts import result as file_header
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from speechadapt.core.files import atomic_write_json
from speechadapt.core.seed import generator
from speechadapt.encoders.whisper import WhisperEncoder

BAR = CLAIMS["native_small"].bar  # of the time of the padded window
GEOMETRIES = {
    "whisper-tiny": {"d_model": 384, "encoder_layers": 4, "heads": 6, "ffn": 1536},
    "whisper-small": {"d_model": 768, "encoder_layers": 12, "heads": 12, "ffn": 3072},
    "mini-whisper": {"d_model": 192, "encoder_layers": 4, "heads": 4, "ffn": 512, "window_s": 10},
    "quick": {"d_model": 64, "encoder_layers": 2, "heads": 4, "ffn": 128},
}
WINDOW_S = 30  # where a geometry says nothing else


def build(geometry: str, dtype: torch.dtype, device: str) -> dict[str, WhisperEncoder]:
    size = GEOMETRIES[geometry]
    window_s = size.get("window_s", WINDOW_S)
    config = WhisperConfig(
        vocab_size=64,
        d_model=size["d_model"],
        encoder_layers=size["encoder_layers"],
        encoder_attention_heads=size["heads"],
        encoder_ffn_dim=size["ffn"],
        decoder_layers=1,
        decoder_attention_heads=size["heads"],
        decoder_ffn_dim=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        max_source_positions=50 * window_s,
    )
    torch.manual_seed(0)
    model = WhisperModel(config).to(torch.device(device), dtype).eval()
    extractor = WhisperFeatureExtractor(chunk_length=window_s)
    return {padding: WhisperEncoder(model, extractor, padding) for padding in ("full", "native")}


def measure(
    encoders: dict[str, WhisperEncoder], clips: Sequence[torch.Tensor], rounds: int, warm_up: int
) -> dict[str, dict[str, list[float]]]:
    """Return seconds per round of feature extraction and of encoding, by padding."""
    seconds: dict[str, dict[str, list[float]]] = {
        padding: {"extract": [], "encode": []} for padding in encoders
    }
    for turn in range(warm_up + rounds):
        order = list(encoders) if turn % 2 == 0 else list(encoders)[::-1]
        for padding in order:
            encoder = encoders[padding]
            weight = next(encoder.model.parameters())
            extracting, (features, lengths) = timed(lambda e=encoder: e.extract(clips))
            features = features.to(weight.device, weight.dtype)
            lengths = lengths.to(weight.device)
            encoding, _ = timed(lambda e=encoder, f=features, n=lengths: e(f, n))
            if turn >= warm_up:
                seconds[padding]["extract"].append(extracting)
                seconds[padding]["encode"].append(encoding)
    return seconds


def timed(work: Callable[[], object]) -> tuple[float, object]:
    synchronise()
    started = time.perf_counter()
    result = work()
    synchronise()
    return time.perf_counter() - started, result


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def interval(values: Sequence[float], reference: Sequence[float] | None = None) -> dict[str, float]:
    """Return the median (of a ratio of medians, given a reference) and its 95 % interval."""
    own = np.asarray(values)
    base = None if reference is None else np.asarray(reference)
    draws = generator("bench_native").integers(0, len(own), size=(2000, len(own)))
    medians = np.median(own[draws], axis=1)
    middle = float(np.median(own))
    if base is not None:
        medians = medians / np.median(base[draws], axis=1)
        middle = middle / float(np.median(base))
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"median": middle, "low": float(low), "high": float(high)}


def report(arguments: argparse.Namespace, seconds: dict[str, dict[str, list[float]]]) -> dict:
    total = {
        padding: [sum(pair) for pair in zip(parts["extract"], parts["encode"], strict=True)]
        for padding, parts in seconds.items()
    }
    ratio = interval(seconds["native"]["encode"], seconds["full"]["encode"])
    return {
        "geometry": arguments.geometry,
        "clip_s": arguments.seconds,
        "window_s": float(GEOMETRIES[arguments.geometry].get("window_s", WINDOW_S)),
        "batch": arguments.batch,
        "dtype": arguments.dtype,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
        "warm_up": arguments.warm_up,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "seconds": {
            padding: {stage: interval(values) for stage, values in parts.items()}
            for padding, parts in seconds.items()
        },
        "ratio_encode": ratio,
        "ratio_with_features": interval(total["native"], total["full"]),
        "bar": None if arguments.quick else BAR,
        "bar_met": None if arguments.quick else ratio["median"] <= BAR,
    }


def published(arguments: argparse.Namespace, words: Sequence[str], result: dict) -> dict:
    """Add what `gen_results.py` shows: date, command, device and the claim."""
    facts = environment(
        arguments.device, arguments.dtype, torch.get_num_threads(), str(arguments.batch)
    )
    ratio = result["ratio_encode"]
    claim = {
        "claim": "native_small",
        "value": ratio["median"],
        "low": ratio["low"],
        "high": ratio["high"],
        "method": f"ratio of medians, 95 % bootstrap over {arguments.rounds} alternating rounds",
    }
    figures = [claim] if arguments.geometry == "whisper-small" else []
    command = describe_command("bench_native.py", words)
    return file_header(command, facts, figures, {}, arguments.quick) | result


def print_table(result: dict) -> None:
    print(
        f"{result['geometry']}, {result['batch']} x {result['clip_s']:g} s against a "
        f"{result['window_s']:g} s window; {result['device']}, {result['dtype']}, "
        f"{result['threads']} threads, torch {result['torch']}, {result['rounds']} rounds"
    )
    print(f"{'':<22}{'median':>10}{'95 % interval':>22}")
    for padding, parts in result["seconds"].items():
        for stage, value in parts.items():
            print_row(f"{padding} {stage} (s)", value)
    print_row("native / full, encode", result["ratio_encode"])
    print_row("... with features", result["ratio_with_features"])
    if result["bar"] is not None:
        print(f"bar: encode <= {result['bar']:g}: {'met' if result['bar_met'] else 'MISSED'}")


def print_row(name: str, value: dict[str, float]) -> None:
    print(f"{name:<22}{value['median']:>10.4f}{value['low']:>12.4f} -{value['high']:>8.4f}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--geometry", choices=sorted(GEOMETRIES), default="whisper-small")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each clip")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--output", "--json", dest="json", type=Path, help="also write the result to this file"
    )
    parser.add_argument("--quick", action="store_true", help="smoke test, no bar")
    parsed = parser.parse_args(arguments)
    if parsed.quick:
        parsed.geometry, parsed.rounds, parsed.warm_up = "quick", 3, 1
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    parsed = parse(words)
    torch.set_num_threads(parsed.threads)
    encoders = build(parsed.geometry, getattr(torch, parsed.dtype), parsed.device)
    noise = torch.Generator().manual_seed(0)
    samples = int(parsed.seconds * 16000)
    clips = [0.1 * torch.randn(samples, generator=noise) for _ in range(parsed.batch)]
    with torch.inference_mode():
        seconds = measure(encoders, clips, parsed.rounds, parsed.warm_up)
    result = published(parsed, words, report(parsed, seconds))
    print_table(result)
    print(json.dumps(result))
    if parsed.json is not None:
        atomic_write_json(parsed.json, result)
    return 1 if result["bar_met"] is False else 0


if __name__ == "__main__":
    sys.exit(main())
