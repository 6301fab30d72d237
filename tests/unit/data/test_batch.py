from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from speechadapt.core.errors import ConfigError
from speechadapt.data.batch import BatchConfig, BatchPlan
from speechadapt.data.manifest import Utterance

JOINED = BatchConfig(
    batch_s=20.0,
    max_rows=6,
    join_prob=1.0,
    join_ramp=(0, 1),
    join_s=(1.5, 6.0),
    join_gap_s=(0.1, 0.2),
    same_speaker_prob=1.0,
)
IN_ANOTHER_PROCESS = """
from tests.unit.data.test_batch import JOINED, plan
print([plan(JOINED).rows(step, 1) for step in (7, 3)])
"""


def utterances() -> list[Utterance]:
    """Return three corpora: many short, some middling, a few long utterances."""
    random = np.random.default_rng(0)
    made = []
    for corpus, count, low, high in (
        ("short", 60, 0.4, 0.9),
        ("middle", 30, 1.0, 3.0),
        ("long", 10, 5.0, 20.0),
    ):
        for number in range(count):
            made.append(
                Utterance(
                    audio_filepath=f"{corpus}/{number}.wav",
                    duration=float(random.uniform(low, high)),
                    text=f"{corpus}{number}",
                    speaker=f"{corpus}-{number % 3}",
                    extra={"corpus": corpus},
                )
            )
    return made


def plan(config: BatchConfig, seed: int = 5) -> BatchPlan:
    """Return a plan over the three corpora."""
    return BatchPlan(utterances(), config, seed)


def test_no_two_rows_of_a_run_share_a_random_stream() -> None:
    rows = [row for step in range(4) for rank in (0, 1) for row in plan(JOINED).rows(step, rank)]
    assert len({row.seed for row in rows}) == len(rows) > 8
    assert rows[0].seed != plan(JOINED, seed=6).rows(0, 0)[0].seed


def test_a_batch_depends_on_seed_step_and_rank_alone() -> None:
    one, other = plan(JOINED), plan(JOINED)
    forwards = [one.rows(step, 0) for step in range(6)]
    backwards = [other.rows(step, 0) for step in reversed(range(6))]
    assert forwards == backwards[::-1]
    assert one.rows(3, 0) == forwards[3]
    assert one.rows(3, 1) != forwards[3]
    assert plan(JOINED, seed=6).rows(3, 0) != forwards[3]


def test_a_batch_is_the_same_in_another_process() -> None:
    environment = os.environ | {"PYTHONHASHSEED": "99", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([plan(JOINED).rows(step, 1) for step in (7, 3)])


def test_corpora_are_drawn_by_their_weights() -> None:
    # With so wide a spread every utterance may stand beside every other.
    weights = {"short": 3.0, "middle": 1.0, "long": 0.0}
    chosen = plan(BatchConfig(batch_s=1e4, max_rows=4, max_s=30.0, weights=weights, spread=1e9))
    drawn = Counter(
        chosen.utterances[part].extra["corpus"]
        for step in range(500)
        for row in chosen.rows(step)
        for part in row.parts
    )
    assert drawn["long"] == 0
    # Four standard deviations of 2000 draws; drawing without replacement only lowers them.
    assert drawn["short"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_without_weights_corpora_are_drawn_by_their_seconds() -> None:
    chosen = plan(BatchConfig(batch_s=1e4, max_rows=1, max_s=30.0, spread=1e9))
    seconds: Counter[str] = Counter()
    for item in chosen.utterances:
        seconds[str(item.extra["corpus"])] += item.duration or 0.0  # type: ignore[assignment]
    drawn = Counter(
        chosen.utterances[chosen.rows(step)[0].parts[0]].extra["corpus"] for step in range(700)
    )
    for corpus, total in seconds.items():
        share = total / sum(seconds.values())
        assert drawn[corpus] / 700 == pytest.approx(share, abs=0.07)


def test_a_batch_keeps_to_its_seconds_rows_and_longest_utterance() -> None:
    config = BatchConfig(batch_s=12.0, max_rows=5, max_s=15.0)
    chosen = plan(config)
    for step in range(200):
        lengths = [chosen.seconds(row) for row in chosen.rows(step)]
        assert 1 <= len(lengths) <= config.max_rows
        assert max(lengths) <= config.max_s
        assert len(lengths) == 1 or len(lengths) * max(lengths) <= config.batch_s + 1e-9


def test_rows_of_a_batch_have_similar_lengths() -> None:
    chosen = plan(BatchConfig(batch_s=12.0, max_rows=6, max_s=30.0, spread=1.3))
    sizes = set()
    for step in range(200):
        lengths = [chosen.seconds(row) for row in chosen.rows(step)]
        assert max(lengths) <= 1.3 * min(lengths) + 1e-9
        sizes.add(len(lengths))
    assert max(sizes) > 1


def test_joined_rows_keep_within_their_limits_and_to_one_speaker() -> None:
    chosen = plan(JOINED)
    most = 0
    for step in range(100):
        rows = chosen.rows(step)
        longest = max(chosen.seconds(row) for row in rows)
        assert len(rows) <= JOINED.max_rows
        assert longest <= JOINED.join_s[1]
        for row in rows:
            assert len(row.gaps_s) == len(row.parts) - 1
            assert all(0.1 <= gap <= 0.2 for gap in row.gaps_s)
            assert len({chosen.utterances[part].speaker for part in row.parts}) == 1
        most = max(most, *(len(row.parts) for row in rows))
    assert most > 3


def test_joined_rows_come_in_with_their_ramp_and_from_their_corpora() -> None:
    config = BatchConfig(
        batch_s=20.0, join_prob=1.0, join_ramp=(50, 150), join_s=(1.5, 3.0), join_corpora=("short",)
    )
    chosen = plan(config)
    joined = [any(len(row.parts) > 1 for row in chosen.rows(step)) for step in range(300)]
    assert not any(joined[:50])
    assert 0.2 < np.mean(joined[50:150]) < 0.8
    assert np.mean(joined[150:]) > 0.95
    parts = [part for row in chosen.rows(200) for part in row.parts]
    assert {chosen.utterances[part].extra["corpus"] for part in parts} == {"short"}


def test_the_text_of_a_joined_row_is_that_of_its_parts() -> None:
    chosen = plan(JOINED)
    row = next(row for row in chosen.rows(0) if len(row.parts) > 1)
    words = chosen.text(row).split()
    assert words == [chosen.utterances[part].text for part in row.parts]


def test_wrong_weights_and_empty_sets_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch\.weights names 'shrt'.* Did you mean short"):
        plan(BatchConfig(weights={"shrt": 1.0}))
    with pytest.raises(ConfigError, match=r"100 loaded, none between 0 and 0\.1 s"):
        plan(BatchConfig(max_s=0.1))
