"""Score a model on the named sets of the data pack and print the table of the README.

Usage: eval_pack.py --model NAME_OR_FOLDER [--adapter FOLDER] [--data ROOT] [--split dev|test]
                    [--sets NAME ...] [--beam N] [--lm FILE] [--option NAME=VALUE] [--output FILE]

The pack's folder comes from --data or SPEECHADAPT_DATA. Under the table each set says how many of
its texts and speakers also occur in the training splits. Choose settings on dev; look at test once.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench_facts import describe_command as public_command
from bench_facts import public_place

from speechadapt.core.errors import ConfigError, SpeechadaptError, near_misses
from speechadapt.core.files import atomic_write_json, hash_file

if TYPE_CHECKING:
    from speechadapt.audio.span import Signal
    from speechadapt.data.manifest import Utterance
    from speechadapt.metrics.report import SetScore
    from speechadapt.models.recogniser import Recogniser

BATCH = 32


def _all(_: Utterance) -> bool:
    return True


def _english(utterance: Utterance) -> bool:
    return utterance.lang == "en"


def _grammar_agrees(utterance: Utterance) -> bool:
    return utterance.extra.get("open_grammar_agrees") is True


@dataclass(frozen=True)
class NamedSet:
    """A named part of the pack.

    Args:
        corpus: The corpus.
        split: Its split.
        language: The language of its texts.
        keep: Which of its utterances count.
    """

    corpus: str
    split: str
    language: str = "en"
    keep: Callable[[Utterance], bool] = _all


SETS: dict[str, dict[str, NamedSet]] = {
    "dev": {
        "fsdd/dev": NamedSet("fsdd", "dev"),
        "orders/dev": NamedSet("orders", "dev", keep=_grammar_agrees),
        "speech_commands/dev": NamedSet("speech_commands", "dev"),
        "wake/dev": NamedSet("wake", "dev"),
        "librispeech/dev": NamedSet("librispeech", "dev"),
        "asc/dev": NamedSet("asc", "dev", language="ar"),
    },
    "test": {
        "fsdd/test_speaker": NamedSet("fsdd", "test_speaker"),
        "fsdd/test": NamedSet("fsdd", "test"),
        "connected": NamedSet("connected", "test", keep=_english),
        "orders": NamedSet("orders", "test", keep=_grammar_agrees),
        "speech_commands/test": NamedSet("speech_commands", "test"),
        "wake/test": NamedSet("wake", "test"),
        "librispeech/test": NamedSet("librispeech", "test"),
        "vctk/test": NamedSet("vctk", "test"),
        "asc/test": NamedSet("asc", "test", language="ar"),
    },
}


def read_set(root: Path, chosen: NamedSet) -> list[Utterance]:
    """Return the utterances of a set that have a text, shortest first."""
    from speechadapt.data.corpora.pack import load_corpus

    utterances = load_corpus(root, chosen.corpus, chosen.split)
    kept = [one for one in utterances if one.text is not None and chosen.keep(one)]
    return sorted(kept, key=lambda one: (one.duration or 0.0, one.id))


def transcribe_set(
    recogniser: Recogniser, root: Path, utterances: Sequence[Utterance]
) -> list[str]:
    """Write one text per utterance; neighbours in length share a batch."""
    texts: list[str] = []
    for start in range(0, len(utterances), BATCH):
        batch = [read_samples(recogniser, root, one) for one in utterances[start : start + BATCH]]
        window = recogniser.window_s * recogniser.sample_rate
        if all(len(samples) <= window for samples in batch):
            texts += [found.text for found in recogniser.decode_batch(batch)]
        else:
            texts += [recogniser.transcribe(one, recogniser.sample_rate).text for one in batch]
    return texts


def read_samples(recogniser: Recogniser, root: Path, utterance: Utterance) -> Signal:
    """Return an utterance's samples at the recogniser's rate."""
    import numpy as np
    import soxr

    from speechadapt.data.corpora.pack import read_audio

    samples, rate = read_audio(root, utterance)
    if rate != recogniser.sample_rate:
        samples = soxr.resample(samples, rate, recogniser.sample_rate)
    return np.ascontiguousarray(samples, dtype=np.float32)


def evaluate(
    recogniser: Recogniser, root: Path, sets: dict[str, NamedSet], normaliser: str
) -> tuple[list[SetScore], dict[str, dict[str, Any]]]:
    """Score every set; the second value holds what the JSON file adds to the scores."""
    from speechadapt.metrics.report import score_set
    from speechadapt.metrics.wer import Pair

    scores: list[SetScore] = []
    details: dict[str, dict[str, Any]] = {}
    for name, chosen in sets.items():
        utterances = read_set(root, chosen)
        begin = time.perf_counter()
        texts = transcribe_set(recogniser, root, utterances)
        seconds = time.perf_counter() - begin
        audio_s = sum(one.duration or 0.0 for one in utterances)
        pairs = [
            Pair(one.id, one.text, text, one.speaker, one.lang)
            for one, text in zip(utterances, texts, strict=True)
        ]
        scores.append(score_set(name, pairs, normaliser=normaliser))
        details[name] = training_overlap(root, utterances) | {
            "audio_s": round(audio_s, 2),
            "work_s": round(seconds, 2),
            "pairs": [
                {"id": pair.id, "text": pair.reference, "pred_text": pair.hypothesis}
                for pair in pairs
            ],
        }
        print(f"{name}: {len(pairs)} items, {audio_s / seconds:.0f}x real time", file=sys.stderr)
    return scores, details


def training_overlap(root: Path, utterances: Sequence[Utterance]) -> dict[str, int]:
    """Count a set's items and speakers whose text or voice is also in training."""
    texts, speakers = training_texts_and_speakers(root)
    voices = {one.speaker for one in utterances if one.speaker is not None}
    return {
        "speakers": len(voices),
        "speakers_in_training": len(voices & speakers),
        "texts_in_training": sum(one.text in texts for one in utterances),
    }


@cache
def training_texts_and_speakers(root: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return every text and speaker of the pack's training splits."""
    from speechadapt.data.corpora.pack import corpora, load_corpus

    rows = [
        one
        for name in corpora(root)
        for one in load_corpus(root, name)
        if one.extra["split"] == "train"
    ]
    return (
        frozenset(one.text for one in rows if one.text is not None),
        frozenset(one.speaker for one in rows if one.speaker is not None),
    )


def choose_sets(split: str, names: Sequence[str], language: str | None) -> dict[str, NamedSet]:
    """Return the sets named, or all of a split in the model's one language, if it has one."""
    known = SETS[split]
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no {split} set '{name}'.{near_misses(name, known)}")
    if names:
        return {name: known[name] for name in names}
    return {name: one for name, one in known.items() if language in (None, one.language)}


def data_root(given: Path | None) -> Path:
    """Return the pack's folder from the command line or SPEECHADAPT_DATA."""
    named = given or (Path(value) if (value := os.environ.get("SPEECHADAPT_DATA")) else None)
    if named is None or not (named / "manifests").is_dir():
        raise ConfigError(
            f"the data pack's folder was given as {named}, which holds no manifests/. "
            "Set --data or SPEECHADAPT_DATA."
        )
    return named


def decoder_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the decoder's options for what was asked on the command line."""
    options: dict[str, Any] = {"word_timestamps": False}
    if arguments.beam is not None:
        options["beam_size"] = arguments.beam
    if arguments.lm is not None:
        options["lm"] = str(arguments.lm)
    for text in arguments.option:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--option takes NAME=VALUE, got '{text}'.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def report(
    arguments: argparse.Namespace, recogniser: Recogniser, sets: dict[str, NamedSet]
) -> dict[str, Any]:
    """Score, print the table, and return everything as JSON types."""
    import torch

    from speechadapt.metrics.report import markdown_table, to_json
    from speechadapt.metrics.speed import describe_environment

    scores, details = evaluate(recogniser, data_root(arguments.data), sets, arguments.normaliser)
    dtype = recogniser.fingerprint()["dtype"]
    environment = describe_environment(arguments.device, dtype, BATCH)
    print(markdown_table(scores))
    for name, scored in zip(sets, scores, strict=True):
        facts = details[name]
        print(
            f"{name}: {facts['texts_in_training']} of {len(scored.score.items)} texts and "
            f"{facts['speakers_in_training']} of {facts['speakers']} speakers also in training."
        )
    print(f"Measured on {environment.line}.")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": describe_command(arguments),
        "model": public_place(recogniser.name),
        "weights_sha256": weights_hash(str(arguments.model)),
        "fingerprint": recogniser.fingerprint(),
        "environment": environment.line,
        "threads": torch.get_num_threads(),
        "sets": [to_json(one) | details[one.name] for one in scores],
    }


def weights_hash(model: str) -> str | None:
    """Return the hash of a local model's weights file, which says what exactly was measured."""
    from speechadapt.models.card import bundled_models

    weights = bundled_models().get(model, Path(model)) / "model.safetensors"
    return hash_file(weights) if weights.is_file() else None


def describe_command(arguments: argparse.Namespace) -> str:
    """Return the command that repeats the measurement, without the places of one machine."""
    words = ["--model", str(arguments.model), "--split", arguments.split]
    words += ["--sets", *arguments.sets] if arguments.sets else []
    words += ["--adapter", str(arguments.adapter)] if arguments.adapter is not None else []
    words += ["--beam", str(arguments.beam)] if arguments.beam is not None else []
    words += ["--lm", str(arguments.lm)] if arguments.lm is not None else []
    words += [word for text in arguments.option for word in ("--option", text)]
    words += ["--normaliser", arguments.normaliser, "--device", arguments.device]
    words += ["--output", str(arguments.output)] if arguments.output is not None else []
    return public_command("eval_pack.py", words, pack=True)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="bundled model, folder or hub id")
    parser.add_argument("--adapter", type=Path, help="folder of a saved adapter for that model")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--split", choices=sorted(SETS), default="dev")
    parser.add_argument("--sets", nargs="+", default=[], metavar="NAME", help="only these sets")
    parser.add_argument("--beam", type=int, metavar="N", help="prefixes kept; 1 is greedy")
    parser.add_argument("--lm", type=Path, metavar="FILE", help="word n-gram: .arpa, or .txt")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other option of the decoder, such as alpha=0.7",
    )
    parser.add_argument("--normaliser", default="verbatim")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(arguments)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(sys.argv[1:] if words is None else words)
    try:
        from speechadapt.models.build import load

        data_root(arguments.data)
        choose_sets(arguments.split, arguments.sets, None)  # a wrong name fails before loading
        options = decoder_options(arguments)
        recogniser = load(
            arguments.model, adapter=arguments.adapter, device=arguments.device, **options
        )
        sets = choose_sets(arguments.split, arguments.sets, recogniser.language)
        found = report(arguments, recogniser, sets)
    except SpeechadaptError as error:
        print(f"eval_pack: {error}", file=sys.stderr)
        return 2
    if arguments.output is not None:
        atomic_write_json(arguments.output, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
