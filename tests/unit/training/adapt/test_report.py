from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from speechadapt.audio.augment import Signal
from speechadapt.data.manifest import Utterance
from speechadapt.training.adapt.report import DevSets, Meter, parameter_facts, report_lines

TEXTS = {"s1": ["one two", "three"], "s2": ["four", "five six seven"]}


def items(language: str = "en") -> list[tuple[Signal, Utterance]]:
    """Return four recordings of two speakers; each is as long as its place."""
    found = []
    for speaker, texts in TEXTS.items():
        for text in texts:
            number = len(found)
            item = Utterance("a", text=text, lang=language, speaker=speaker, id=f"u{number}")
            found.append((np.zeros(10 - number, dtype=np.float32), item))
    return found


def test_rates_and_intervals_are_those_of_the_texts_read() -> None:
    dev = DevSets({"a": items(), "b": []}, "verbatim", None, rows=3)
    names: list[str] = []

    def read(name: str, signals: list[Signal]) -> list[str]:
        names.append(name)
        texts = {10: "one two", 9: "three", 8: "for", 7: "five six"}
        return [texts[len(signal)] for signal in signals]

    scores = dev.score(read)
    assert names == ["a-0", "a-3"]
    assert scores == {"wer": 2 / 7, "cer": pytest.approx(7 / 30), "a": 2 / 7}
    details = dev.details()["a"]
    assert details["wer"] == 2 / 7
    assert details["wer_interval"] == [0.0, 0.5]  # all of one speaker or of the other
    assert details["interval"] == "95% bootstrap over 2 speakers"
    assert details["items"] == 4
    dev.score(lambda name, signals: [""] * len(signals))
    assert dev.details()["a"]["wer"] == 1.0


def test_languages_without_spaces_are_scored_by_characters() -> None:
    dev = DevSets({"a": items("zh")}, "verbatim", None)
    scores = dev.score(lambda name, signals: ["one two", "three", "four", ""][::-1])
    assert scores["a"] == scores["cer"] != scores["wer"]


def test_steps_are_measured() -> None:
    meter = Meter()
    assert meter.facts()["seconds_per_step"] is None
    meter.start()
    for seconds in (1.0, 5.0, 2.0):
        meter.step(seconds)
    facts = meter.facts()
    assert facts["seconds_per_step"] == 2.0
    assert facts["steps_measured"] == 3


# In a process of its own: what earlier tests held may be given back to the system at any time.
PEAK = """
import gc, json, torch
from speechadapt.training.adapt.report import Meter
meter = Meter()
held = [torch.ones(100_000_000 // 4)]
held.append(held)  # a cycle: what it holds is freed when the collector finds it
del held
meter.start()
gc.collect()
block = torch.ones(200_000_000 // 4)  # more than the allocator keeps of what was freed
del block
meter.start()  # a second start moves no ground
print(json.dumps(meter.facts()["peak_memory"]))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the memory of the CPU")
def test_peak_of_memory_is_measured_from_the_start_on() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout)
    if peak is None:
        pytest.skip("this system does not tell the peak of a process from now on")
    assert 190_000_000 < peak < 260_000_000


def test_shares_leave_the_head_out() -> None:
    facts = parameter_facts({"head": 30, "adapter": 50}, 1000)
    assert facts["trained"] == 80
    assert facts["share"] == 0.05
    assert facts["share_with_head"] == 0.08


def test_a_report_is_told_in_lines() -> None:
    score = {
        "wer": 0.25, "wer_interval": [0.2, 0.3], "cer": 0.1, "cer_interval": [0.05, 0.125],
        "items": 4, "interval": "95% bootstrap over 2 speakers",
    }  # fmt: skip
    report = {
        "what": "adapter lora",
        "parameters": parameter_facts({"head": 30, "adapter": 50}, 1000),
        "seconds_per_step": 0.5,
        "steps_measured": 7,
        "peak_memory": 3 * 2**20,
        "peak_memory_of": "things",
        "prefix": {"layers": 3, "entries": 9, "bytes": 2**20, "seconds": 1.5},
        "scores": {"best": {"asc": score}},
    }
    assert report_lines(report).splitlines() == [
        "adapter lora: 80 parameters trained, 5.00 % of the encoder's 1,000 without the head",
        "0.500 s a step (median of 7), peak 3 MiB of things",
        "frozen prefix of 3 layers: 9 inputs kept, 1.0 MiB, computed in 1.5 s",
        "best: asc WER 25.0 % (20.0 to 30.0), CER 10.0 % (5.0 to 12.5); 4 items, "
        "95% bootstrap over 2 speakers",
    ]
    bare = report | {"prefix": None, "peak_memory": None, "scores": {}}
    assert report_lines(bare).splitlines()[1:] == ["0.500 s a step (median of 7)"]
    assert len(report_lines(bare | {"seconds_per_step": None}).splitlines()) == 1
