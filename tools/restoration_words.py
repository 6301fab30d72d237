"""Ask whether words survive restoration: what a judge hears before and after it.

Usage: restoration_words.py [--model NAME_OR_FOLDER] [--judge MODEL [--judge-adapter FOLDER]]
                            [--language en|ar|es|zh-Latn-pinyin] [--data ROOT] [--split dev|test]
                            [--most N] [--iterations N] [--signal generated|masked]
                            [--output FILE]

The sets are recordings whose words the small English models can hear, degraded by the preset
`miipher`, seed 0 (see `restoration_cases.py`). The judge shares no weights with the restorer; no
quality gate holds a file back. The ratio is the word errors after restoration over those before,
all sets together, with the 95 % interval over speakers, the same ones on both sides. Other
languages are read by an adapter of the judge, trained on their clean recordings, and character
errors count.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_facts import describe_command, environment, result, run_tool
from eval_pack import data_root, weights_hash
from restoration_cases import FOREIGN, PRESET, SPOKEN, Case, spoken_cases

from speechadapt.core.errors import ConfigError
from speechadapt.metrics.bootstrap import Interval, bootstrap_ratio
from speechadapt.metrics.report import SetScore, markdown_table, score_set, to_json
from speechadapt.metrics.wer import Pair
from speechadapt.models.build import load
from speechadapt.models.recogniser import Recogniser
from speechadapt.models.restorer_folder import find_restorer, load_restorer
from speechadapt.restoration.request import SIGNALS, RestoreConfig

SIDES = ("clean", "degraded", "restored")
TOGETHER = "all"


def heard(
    judge: Recogniser,
    cases: Sequence[Case],
    signals: Sequence[np.ndarray],
    language: str = "en",
) -> list[Pair]:
    """Return what the judge hears in each signal, beside what is said."""
    found = []
    for case, signal in zip(cases, signals, strict=True):
        text = judge.transcribe(signal, case.sample_rate).text
        found.append(Pair(case.name, case.text, text, case.speaker, language))
    return found


def score_sides(
    cases: Sequence[Case], sides: Mapping[str, Sequence[Pair]], rules: str
) -> dict[str, dict[str, SetScore]]:
    """Return the scores by set, `all` last, and side."""
    groups = [*dict.fromkeys(case.group for case in cases), TOGETHER]
    return {
        group: {
            side: score_set(
                f"{group}: {side}",
                [
                    pair
                    for case, pair in zip(cases, pairs, strict=True)
                    if group in (case.group, TOGETHER)
                ],
                normaliser=rules,
            )
            for side, pairs in sides.items()
        }
        for group in groups
    }


def errors_ratio(first: SetScore, second: SetScore, unit: str = "words") -> Interval:
    """Return the errors of one side over those of another, with the interval.

    Args:
        first: The one side.
        second: The other.
        unit: `words` or `characters`.
    """
    edits = [[getattr(item, unit).edits for item in one.score.items] for one in (first, second)]
    speakers = [item.pair.speaker for item in first.score.items]
    return bootstrap_ratio(edits[0], edits[1], speakers)


def as_figure(claim: str, found: Interval, what: str) -> dict[str, Any]:
    """Return a ratio as a figure of the results."""
    method = f"{found.description}, {what}"
    return {
        "claim": claim,
        "value": found.estimate,
        "low": found.low,
        "high": found.high,
        "method": method,
    }


def measure(arguments: argparse.Namespace, words: Sequence[str]) -> dict[str, Any]:
    """Measure everything, print the table, and return it as JSON types."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    root = data_root(arguments.data)
    adapter = {} if arguments.judge_adapter is None else {"adapter": arguments.judge_adapter}
    judge: object = load(arguments.judge, **adapter)
    if not isinstance(judge, Recogniser):
        raise ConfigError(f"--judge '{arguments.judge}' is no recogniser.")
    restorer = load_restorer(find_restorer(arguments.model))
    config = RestoreConfig(arguments.iterations, signal=arguments.signal)
    language, english = arguments.language, arguments.language == "en"
    cases = list(spoken_cases(root, arguments.split, arguments.most, language))
    if not cases:
        raise ConfigError(f"the pack has no {arguments.split} recordings in '{language}'.")
    restored = [restorer.restore(one.degraded, one.sample_rate, config) for one in cases]
    signals = ([one.clean for one in cases], [one.degraded for one in cases], restored)
    sides = {
        side: heard(judge, cases, made, language) for side, made in zip(SIDES, signals, strict=True)
    }
    scores = score_sides(cases, sides, arguments.normaliser)
    print(markdown_table([one for group in scores.values() for one in group.values()]))
    everything = scores[TOGETHER]
    unit = "words" if english else "characters"
    ratio = errors_ratio(everything["restored"], everything["degraded"], unit)
    details = {
        "preset": PRESET,
        "judge": arguments.judge if not Path(arguments.judge).is_dir() else None,
        "judge_sha256": weights_hash(arguments.judge),
        "restorer": restorer.fingerprint(),
        "sets": [to_json(one) for group in scores.values() for one in group.values()],
    }
    facts = environment("cpu", "float32", torch.get_num_threads(), "1")
    claim = "restoration_words" if english else f"restoration_{language[:2]}"
    figures = [as_figure(claim, ratio, f"{unit}, all sets together")]
    command = describe_command("restoration_words.py", words, pack=True)
    return result(command, facts, figures, details, quick=arguments.most is not None)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a restorer's name or folder (default: mini-restorer)")
    parser.add_argument("--judge", default="mini-whisper", help="the recogniser that hears words")
    parser.add_argument("--judge-adapter", metavar="FOLDER", help="an adapter of it that hears")
    parser.add_argument(
        "--language", choices=("en", *FOREIGN), default="en", help="of the recordings"
    )
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--split", choices=sorted(SPOKEN), default="dev")
    parser.add_argument("--most", type=int, metavar="N", help="only so many of a set")
    parser.add_argument("--iterations", type=int, help="of the vocoder")
    parser.add_argument("--signal", choices=SIGNALS, help="default: as the restorer says")
    parser.add_argument("--normaliser", default="verbatim")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="0: torch's default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(words)


def main(given: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_tool("restoration_words", sys.argv[1:] if given is None else given, parse, measure)


if __name__ == "__main__":
    sys.exit(main())
