"""Compare a restorer with its input, a spectral gate and its own vocoder on clean features.

Usage: eval_restoration.py --model NAME_OR_FOLDER [--data ROOT] [--split dev|test] [--most N]
                           [--iterations N] [--signal generated|masked]
                           [--score pesq stoi dnsmos speaker words]
                           [--judge MODEL] [--speaker-model FOLDER] [--output FILE]

Arms, scored against the clean recording:

    degraded   the input
    gate       spectral gating: bins below 1.5 times their quietest tenth over time are turned down
    restored   the restorer
    generated  what its vocoder makes, where the restorer gives out something else
    oracle     the restorer's vocoder on the features of the clean recording: what cleaning could
               reach at best

Test sets are those of the pack (`mixtures` by language, `voicebank_pairs`). The dev set is the dev
recordings of librispeech_clean and kerstin24, degraded by the preset `miipher` with training noises
and rooms, seed 0. Choose on dev; look at test once.

Words are what a recogniser that shares no weights with the restorer hears in every arm, against the
transcript, or against what it hears in the clean recording where nobody wrote one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_facts import describe_command, environment, result
from eval_pack import data_root
from restoration_cases import Case, dev_cases, test_cases

from speechadapt.core.errors import ConfigError, SpeechadaptError
from speechadapt.core.files import atomic_write_json
from speechadapt.metrics.quality_listener import LISTENERS, check_listeners
from speechadapt.metrics.quality_report import Pair, PairScore, Scored, score_signals, summary
from speechadapt.metrics.report import markdown_table, score_set, to_json
from speechadapt.metrics.wer import Pair as Said
from speechadapt.models.build import load
from speechadapt.models.pair_judges import SpeakerScore
from speechadapt.models.recogniser import Recogniser
from speechadapt.models.restorer import Restorer
from speechadapt.models.restorer_folder import (
    find_encoder,
    find_restorer,
    load_restorer,
    read_restorer,
)
from speechadapt.models.speaker import load_speaker_model
from speechadapt.restoration.cleaner import make_cleaner
from speechadapt.restoration.cut import load_cut
from speechadapt.restoration.request import SIGNALS, RestoreConfig
from speechadapt.restoration.vocoder import Vocoder

ARMS = ("degraded", "gate", "restored", "generated", "oracle")
SHOWN = (
    "lsd_db",
    "dnsmos_bak",
    "dnsmos_ovrl",
    "dnsmos_sig",
    "pesq",
    "estoi",
    "si_sdr_db",
    "speaker",
)
MODELS = ("speaker", "words")
# claim: what `restored` is held against, and in which score
FIGURES = {
    "restored_lsd": ("restored", "lsd_db"),
    "restored_lsd_gate": ("restored against gate", "lsd_db"),
    "restored_bak": ("restored", "dnsmos_bak"),
    "restored_bak_gate": ("restored against gate", "dnsmos_bak"),
    "restored_ovrl_oracle": ("restored against oracle", "dnsmos_ovrl"),
    "restored_speaker": ("restored", "speaker"),
}
_FFT, _HOP = 512, 128
_ABOVE, _LEAST_GAIN = 1.5, 0.1


@dataclass(frozen=True)
class Ears:
    """Who judges.

    Args:
        listeners: Of `LISTENERS`.
        judges: Give further scores.
        words: Hears words; None where nobody does.
    """

    listeners: Sequence[str]
    judges: Sequence[PairScore] = ()
    words: Recogniser | None = None


def oracle_of(folder: Path, vocoder: Vocoder) -> Restorer:
    """Return a restorer that hears what is there: its cleaner is untrained and changes nothing."""
    layers = read_restorer(folder)["layer"]
    cleaner = make_cleaner(load_cut(find_encoder(folder)[0], layers), config={"bottleneck": 1})
    return Restorer(cleaner, vocoder)


def gated(signal: np.ndarray) -> np.ndarray:
    """Turn down what does not rise above the quietest tenth of its frequency."""
    window = torch.hann_window(_FFT)
    samples = torch.from_numpy(np.pad(signal, (0, max(0, _FFT - len(signal)))))
    spectrum = torch.stft(samples, _FFT, _HOP, window=window, return_complex=True)
    size = spectrum.abs()
    floor = torch.quantile(size, 0.1, dim=1, keepdim=True)
    gain = (1 - _ABOVE * floor / size.clamp(min=1e-9)).clamp(min=_LEAST_GAIN)
    made = torch.istft(spectrum * gain, _FFT, _HOP, window=window, length=len(samples))
    return made[: len(signal)].numpy()


def arms_of(
    case: Case, restorer: Restorer, oracle: Restorer, config: RestoreConfig
) -> dict[str, np.ndarray]:
    """Return the signal of every arm."""
    generates = replace(config, signal="generated")
    rate = case.sample_rate
    found = {
        "degraded": case.degraded,
        "gate": gated(case.degraded),
        "restored": restorer.restore(case.degraded, rate, config),
    }
    if (config.signal or restorer.signal) != "generated":
        found["generated"] = restorer.restore(case.degraded, rate, generates)
    return found | {"oracle": oracle.restore(case.clean, rate, generates)}


def measure(
    cases: Sequence[Case],
    restorer: Restorer,
    oracle: Restorer,
    config: RestoreConfig,
    ears: Ears,
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str, Said]]]:
    """Score every arm of every case.

    Returns:
        By set: a summary for each arm with the change against the input, and for `restored` those
        against the gate and the oracle. And what was heard: set, arm, and the words of each case.
    """
    found: dict[str, list[dict[str, Mapping[str, float | None]]]] = {}
    heard: list[tuple[str, str, Said]] = []
    for number, case in enumerate(cases, 1):
        signals, rate = arms_of(case, restorer, oracle, config), case.sample_rate
        scores = {
            arm: score_signals(case.clean, signal, rate, ears.listeners, ears.judges)
            for arm, signal in signals.items()
        }
        said = _said(case, signals, ears.words)
        for group in (case.group, "all"):
            found.setdefault(group, []).append(scores)
            heard += [(group, arm, words) for arm, words in said.items()]
        print(f"{number} of {len(cases)}: {case.name}", file=sys.stderr)
    return {group: summaries(rows) for group, rows in found.items()}, heard


def _said(
    case: Case, signals: Mapping[str, np.ndarray], judge: Recogniser | None
) -> dict[str, Said]:
    """Return what is heard in every arm, against what is said."""
    if judge is None:
        return {}
    rate, text = case.sample_rate, case.text
    wanted = judge.transcribe(case.clean, rate).text if text is None else text
    return {
        arm: Said(case.name, wanted, judge.transcribe(signal, rate).text)
        for arm, signal in signals.items()
    }


def summaries(rows: Sequence[Mapping[str, Mapping[str, float | None]]]) -> dict[str, Any]:
    """Return means with intervals for each arm, and what `restored` changes against the others."""

    def against(arm: str, other: str) -> dict[str, Any]:
        nowhere = Pair("", Path(), None)
        return summary([Scored(nowhere, row[arm], row[other]) for row in rows])

    found = {arm: against(arm, "degraded") for arm in ARMS if arm in rows[0]}
    return found | {
        f"restored against {arm}": against("restored", arm) for arm in ("gate", "oracle")
    }


def figures(arms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the paired changes that are claimed, of the arms of all recordings together."""
    found = []
    for claim, (arm, score) in FIGURES.items():
        change = arms[arm]["scores"].get(score, {}).get("change")
        if change and change["mean"] is not None:
            method = f"mean and 95 % bootstrap interval of {arms[arm]['items']} paired differences"
            ends = {"value": change["mean"], "low": change["low"], "high": change["high"]}
            found.append({"claim": claim, **ends, "method": method})
    return found


def table(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the arms' means as a Markdown table."""
    lines = ["| set | arm | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 2) + "|"]
    for group, arms in groups.items():
        for arm in (one for one in ARMS if one in arms):
            rows = arms[arm]["scores"]
            cells = [_cell(rows.get(score, {}).get("degraded")) for score in SHOWN]
            lines.append(f"| {group} ({arms[arm]['items']}) | {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Mapping[str, Any] | None) -> str:
    if not found or found["mean"] is None:
        return "-"
    return f"{found['mean']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a restorer's name or folder (default: mini-restorer)")
    parser.add_argument("--data", type=Path, help="the pack's folder (default: SPEECHADAPT_DATA)")
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--most", type=int, help="only so many recordings, evenly spread")
    parser.add_argument("--iterations", type=int, help="of the vocoder")
    parser.add_argument("--signal", choices=SIGNALS, help="default: as the restorer says")
    known = (*LISTENERS, *MODELS)
    parser.add_argument("--score", nargs="*", default=list(LISTENERS), choices=known)
    parser.add_argument("--judge", default="mini-whisper", help="the recogniser that hears words")
    parser.add_argument("--speaker-model", help="a folder (default: the bundled model)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything as JSON")
    return parser.parse_args(words)


def ears_of(arguments: argparse.Namespace) -> Ears:
    """Load those who judge.

    Raises:
        ConfigError: The judge of words is no recogniser.
    """
    listeners = [name for name in arguments.score if name in LISTENERS]
    check_listeners(tuple(listeners))
    judges: list[PairScore] = []
    if "speaker" in arguments.score:
        judges.append(SpeakerScore(load_speaker_model(arguments.speaker_model)))
    if "words" not in arguments.score:
        return Ears(listeners, judges)
    judge: object = load(arguments.judge)
    if not isinstance(judge, Recogniser):
        raise ConfigError(f"--judge '{arguments.judge}' is no recogniser.")
    return Ears(listeners, judges, judge)


def word_sets(heard: Sequence[tuple[str, str, Said]]) -> list[Any]:
    """Return the words' scores of every set and arm."""
    groups: dict[str, list[Said]] = {}
    for group, arm, said in heard:
        groups.setdefault(f"{group}: {arm}", []).append(said)
    return [score_set(name, pairs) for name, pairs in groups.items()]


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = list(sys.argv[1:] if words is None else words)
    arguments = parse(given)
    try:
        ears = ears_of(arguments)
        folder = find_restorer(arguments.model)
        restorer = load_restorer(folder)
        oracle = oracle_of(folder, restorer.vocoder)
        root = data_root(arguments.data)
        cases = list(test_cases(root) if arguments.split == "test" else dev_cases(root))
        step = max(1, len(cases) // (arguments.most or len(cases)))
        chosen = cases[::step][: arguments.most]
        config = RestoreConfig(arguments.iterations, signal=arguments.signal)
        groups, heard = measure(chosen, restorer, oracle, config, ears)
    except SpeechadaptError as error:
        print(f"eval_restoration: {error}", file=sys.stderr)
        return 2
    print(table(groups))
    sets = word_sets(heard)
    if sets:
        print(f"\n{markdown_table(sets)}")
    if arguments.output is not None:
        command = describe_command("eval_restoration.py", given, pack=True)
        facts = environment("cpu", "float32", torch.get_num_threads(), "1")
        found = result(command, facts, figures(groups["all"]), {}, arguments.most is not None)
        found |= {
            "fingerprint": restorer.fingerprint(),
            "groups": groups,
            "words": [to_json(one) for one in sets],
        }
        atomic_write_json(arguments.output, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
