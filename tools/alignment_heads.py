"""Choose the cross-attention heads that give a Whisper its word times, on dev recordings.

Usage: alignment_heads.py --model FOLDER [--reference NAME_OR_FOLDER] [--data ROOT]
                          [--sets NAME ...] [--most N] [--write]

Every head places the words of the known texts by itself; the measure is the distance of its word
starts from those that a CTC model finds by forced alignment of the same texts. The best head comes
first; others join while the mean distance of their common placement falls. `--write` stores the
choice in the model's generation_config.json. Transcribing FOLDER then writes word times.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from eval_pack import choose_sets, data_root, read_samples, read_set

from speechadapt.audio.margin import add_margin
from speechadapt.core.errors import ConfigError, SpeechadaptError
from speechadapt.core.files import atomic_write_json

if TYPE_CHECKING:
    from speechadapt.audio.span import Signal
    from speechadapt.decoders.base import Word
    from speechadapt.models.recogniser import Recogniser

Head = tuple[int, int]
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Clip:
    """A recording with its text and where its words begin.

    Args:
        samples: Mono, at the models' sample rate.
        text: Its transcript.
        starts: Seconds at which the reference finds each word.
    """

    samples: Signal
    text: str
    starts: tuple[float, ...]


def reference_starts(reference: Recogniser, samples: Signal, text: str) -> tuple[float, ...]:
    """Return the word starts that a CTC model aligns, in seconds; none where the text has no path.

    Args:
        reference: The CTC recogniser.
        samples: Mono, at its sample rate.
        text: The transcript.
    """
    from speechadapt.decoders.ctc.align import align_words, frames_needed

    padded = add_margin(samples, reference.sample_rate, reference.margin_s)
    frames, lengths = reference.encoder.encode([torch.from_numpy(padded)])
    decoder: Any = reference.decoder
    labels = decoder.alphabet.encode(text)
    log_probs = decoder.log_probs(frames)[0, : int(lengths[0])]
    if frames_needed(labels) > len(log_probs):
        return ()
    words = align_words(log_probs, labels, decoder.alphabet, reference.encoder.frame_rate)
    return tuple(word.start - reference.margin_s for word in words)


def head_words(model: Recogniser, clip: Clip, heads: Sequence[Head]) -> tuple[Word, ...]:
    """Return the words of a clip's text where the given heads place them together."""
    from speechadapt.decoders.whisper_ar.timing import align

    decoder: Any = model.decoder
    padded = add_margin(clip.samples, model.sample_rate, model.margin_s)
    frames, lengths = model.encoder.encode([torch.from_numpy(padded)])
    language = model.language
    prompt = decoder.vocabulary.prompt(language, "transcribe", True)
    tokens = decoder.vocabulary.tokenizer.encode(f" {clip.text}", add_special_tokens=False).ids
    rate = model.encoder.frame_rate
    return align(decoder.generator, frames, lengths, [prompt], [tokens], heads, [language], rate)[0]


def distances(model: Recogniser, clips: Sequence[Clip], heads: Sequence[Head]) -> list[float]:
    """Return the distance of every word start from the reference's, in seconds."""
    found: list[float] = []
    for clip in clips:
        words = head_words(model, clip, heads)
        if len(words) == len(clip.starts):
            pairs = zip(words, clip.starts, strict=True)
            found += [abs(word.start - model.margin_s - start) for word, start in pairs]
    return found


def choose(model: Recogniser, clips: Sequence[Clip], most: int) -> tuple[list[Head], list[str]]:
    """Return the chosen heads and a line for each head tried alone and each one that joined.

    Raises:
        ConfigError: No head places any word.
    """
    decoder: Any = model.decoder
    config = decoder.generator.network.config
    layers, count = config.decoder_layers, config.decoder_attention_heads
    alone: dict[Head, float] = {}
    lines = []
    for head in [(layer, number) for layer in range(layers) for number in range(count)]:
        found = distances(model, clips, [head])
        if not found:
            raise ConfigError("no head placed a word; the texts give no words to place.")
        alone[head] = float(np.mean(found))
        lines.append(f"head {head}: mean {alone[head]:.3f} s, median {np.median(found):.3f} s")
    order = sorted(alone, key=lambda head: alone[head])
    chosen, best = [order[0]], alone[order[0]]
    for head in order[1:]:
        if len(chosen) == most:
            break
        mean = float(np.mean(distances(model, clips, [*chosen, head])))
        if mean < best:
            chosen, best = [*chosen, head], mean
            lines.append(f"with {head}: mean {mean:.3f} s")
    return chosen, lines


def read_clips(
    model: Recogniser, reference: Recogniser, root: Path, sets: Sequence[str]
) -> list[Clip]:
    """Return the dev recordings of two words or more that both models can take.

    Raises:
        ConfigError: There is none.
    """
    clips = []
    for chosen in choose_sets("dev", sets, model.language).values():
        for one in read_set(root, chosen):
            samples = read_samples(model, root, one)
            fits = len(samples) <= model.window_s * model.sample_rate
            starts = reference_starts(reference, samples, one.text or "") if fits else ()
            if len(starts) > 1:
                clips.append(Clip(samples, one.text or "", starts))
    if not clips:
        raise ConfigError(f"none of the sets {', '.join(sets)} has a clip of two words or more.")
    return clips


def write_heads(folder: Path, heads: Sequence[Head]) -> None:
    """Store the heads in a model folder's generation_config.json."""
    path = folder / GENERATION
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    settings["alignment_heads"] = [list(head) for head in heads]
    atomic_write_json(path, settings)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a Whisper")
    parser.add_argument("--reference", default="mini-usm", help="CTC model that knows the times")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--sets", nargs="+", default=["orders/dev", "wake/dev"], metavar="NAME")
    parser.add_argument("--most", type=int, default=6, help="heads to choose at most")
    parser.add_argument("--write", action="store_true", help="store the choice in the model")
    return parser.parse_args(words)


@torch.inference_mode()
def main(words: Sequence[str] | None = None) -> int:
    import speechadapt

    arguments = parse(words)
    try:
        model = speechadapt.load(arguments.model)
        reference = speechadapt.load(arguments.reference)
        if (model.decoder.name, reference.decoder.name) != ("whisper_ar", "ctc"):
            raise ConfigError(
                f"--model must be a Whisper and --reference a CTC model, got {model.decoder.name} "
                f"and {reference.decoder.name}."
            )
        clips = read_clips(model, reference, data_root(arguments.data), arguments.sets)
        heads, lines = choose(model, clips, arguments.most)
    except SpeechadaptError as error:
        print(f"alignment_heads: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    total = sum(len(clip.starts) for clip in clips)
    print(f"chosen on {len(clips)} clips, {total} words: {[list(head) for head in heads]}")
    if arguments.write:
        write_heads(arguments.model, heads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
