from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from speechadapt.core.errors import CheckpointError
from speechadapt.training import loop
from speechadapt.training.loop import TrainerConfig, train
from speechadapt.training.objective import Group
from speechadapt.training.state import latest_checkpoint
from tests.toy_objective import ROWS, Interleaved, Regression

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CONFIG = TrainerConfig(
    steps=6,
    warmup_steps=2,
    learning_rate=0.01,
    average=0.9,
    log_every=1,
    evaluate_every=3,
    checkpoint_every=2,
)
FILES = ("model.safetensors", "optimizer.safetensors", "average.safetensors")


def start(script: str, *words: str, launcher: tuple[str, ...] = ()) -> None:
    """Run a script beside this file in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, str(HERE / script), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def figures(folder: Path) -> list[dict[str, object]]:
    """Read the log without the times."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    """Compare the last checkpoints, the saved models and the logs of two runs, bit for bit."""
    left, right = latest_checkpoint(one / "checkpoints"), latest_checkpoint(other / "checkpoints")
    assert left is not None
    assert right is not None
    assert left.name == right.name
    for name in FILES:
        assert (left / name).read_bytes() == (right / name).read_bytes(), name
    for saved in ("last", "best"):
        weights = f"{saved}/model.safetensors"
        assert (one / weights).read_bytes() == (other / weights).read_bytes(), saved
    assert figures(one) == figures(other)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Straight and killed-and-resumed runs of two tasks, and a run of two processes."""
    folder = tmp_path_factory.mktemp("killed")
    start("kill_and_resume.py", str(folder))
    return folder


@pytest.fixture(scope="module")
def together(killed: Path) -> Path:
    """A run of two processes."""
    return killed / "together"


def torchrun() -> tuple[str, ...]:
    """Return the words that start two processes on this machine."""
    return ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.parametrize("task", ["ctc", "seq2seq"])
def test_a_killed_run_goes_on_in_a_new_process_bit_for_bit(killed: Path, task: str) -> None:
    assert_same_run(killed / task / "straight", killed / task / "resumed")
    assert len(figures(killed / task / "resumed")) == 5 + 2


def test_two_processes_hold_the_same_weights(together: Path) -> None:
    one, other = (load_file(together / f"rank{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (together / "rank0.txt").read_text() == (together / "rank1.txt").read_text() == "6"


def test_two_processes_learn_as_one_that_accumulates_both_batches(
    together: Path, tmp_path: Path
) -> None:
    config = replace(CONFIG, average=0.0, accumulate=4)
    train(Interleaved(dropout=0.0), config, tmp_path)
    pairs = list(zip(figures(together), figures(tmp_path), strict=True))
    assert len(pairs) == 6 + 2
    for two, one in pairs:
        scores = ("dev",) if "dev" in one else ("loss", "half", "grad_norm")
        for name in scores:
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-6)
    weights = load_file(together / "rank0.safetensors")
    alone = load_file(tmp_path / "last/model.safetensors")
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path: Path) -> None:
    start("two_processes.py", str(tmp_path), launcher=torchrun())
    assert (tmp_path / "rank0.txt").read_text() == (tmp_path / "rank1.txt").read_text() == "2"
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert json.loads((checkpoint / "state.json").read_text())["processes"] == 2


def test_a_signal_leaves_a_checkpoint_that_goes_on_as_if_nothing_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def ask(passes: int) -> None:
        if passes == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = train(Regression(spy=ask), CONFIG, tmp_path / "stopped")
    assert (stopped.step, stopped.finished, stopped.signal) == (3, False, signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    assert train(Regression(), CONFIG, tmp_path / "stopped").finished
    train(Regression(), CONFIG, tmp_path / "straight")
    assert_same_run(tmp_path / "straight", tmp_path / "stopped")


def test_groups_follow_the_schedule_by_their_factor(tmp_path: Path) -> None:
    class Grouped(Regression):
        def groups(self) -> dict[str, Group]:
            return {"layers.0.": Group(0.0, 0.0)}

    objective = Grouped()
    still = objective.layers[0].weight.detach().clone()
    moving = objective.layers[3].weight.detach().clone()
    train(objective, CONFIG, tmp_path)
    assert torch.equal(objective.layers[0].weight, still)
    assert not torch.equal(objective.layers[3].weight, moving)


def test_an_objective_hears_of_every_step_and_of_the_end(tmp_path: Path) -> None:
    class Attentive(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.heard: list[object] = []

        def begin(self) -> None:
            self.heard.append("begin")

        def after_step(self, step: int, seconds: float) -> None:
            assert 0 < seconds < 60
            self.heard.append(step)

        def finish(self, folder: Path) -> None:
            assert (folder / "last/training.json").is_file()
            self.heard.append(folder.name)

    objective = Attentive()
    train(objective, replace(CONFIG, sitting_s=1e-6), tmp_path)
    assert objective.heard == ["begin", 1]
    objective = Attentive()
    train(objective, CONFIG, tmp_path)
    assert objective.heard == [2, 3, 4, 5, 6, tmp_path.name]


def test_a_sitting_ends_with_a_checkpoint(tmp_path: Path) -> None:
    config = replace(CONFIG, sitting_s=1e-6)
    steps = [train(Regression(), config, tmp_path).step for _ in range(3)]
    assert steps == [1, 2, 3]


def test_a_finished_run_can_be_started_again_and_keeps_its_scores(tmp_path: Path) -> None:
    first = train(Regression(), CONFIG, tmp_path)
    saved = (tmp_path / "last/training.json").read_text()
    again = train(Regression(), CONFIG, tmp_path)
    assert again == first
    assert (tmp_path / "last/training.json").read_text() == saved
    assert json.loads(saved)["dev"] == first.scores != {}


def test_accumulated_micro_steps_equal_one_larger_batch(tmp_path: Path) -> None:
    class Halved(Regression):
        def batch(self, step: int, rank: int) -> dict[str, torch.Tensor]:
            whole = Regression(rows=2 * ROWS).batch(step // 2, rank)
            part = slice(ROWS * (step % 2), ROWS * (step % 2 + 1))
            return {name: tensor[part] for name, tensor in whole.items()}

    config = replace(CONFIG, average=0.0)
    train(Regression(dropout=0.0, rows=2 * ROWS), config, tmp_path / "large")
    train(Halved(dropout=0.0), replace(config, accumulate=2), tmp_path / "halves")
    large = load_file(tmp_path / "large/last/model.safetensors")
    halves = load_file(tmp_path / "halves/last/model.safetensors")
    for name, tensor in large.items():
        # float32 sums in another order; Adam divides by small second moments
        torch.testing.assert_close(tensor, halves[name], rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_not_a_number_is_refused_and_the_checkpoint_stays(tmp_path: Path) -> None:
    class Lost(Regression):
        def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
            loss, extra = super().forward(batch)
            return (loss * float("nan") if self.passes == 5 else loss), extra

    with pytest.raises(CheckpointError, match="the loss is nan at step 3"):
        train(Lost(), CONFIG, tmp_path)
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "step-00000002"


def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    class Unscored(Regression):
        def evaluate(self) -> dict[str, float]:
            score = super().evaluate()["error"]
            return {"error": float("nan") if self.passes < 5 else score}

    result = train(Unscored(), CONFIG, tmp_path)
    assert result.best == (result.scores["error"], 6)


def test_a_gradient_that_is_not_a_number_never_reaches_the_weights(tmp_path: Path) -> None:
    class Steep(Regression):
        def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
            loss, extra = super().forward(batch)
            zero = (self.layers[0].weight * 0).sum()
            return loss + zero.sqrt(), extra  # the slope of a root at 0 is infinite

    objective = Steep()
    with pytest.raises(CheckpointError, match="the gradient is nan at step 0"):
        train(objective, CONFIG, tmp_path)
    assert all(torch.isfinite(part).all() for part in objective.parameters())


def test_other_settings_or_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    train(Regression(), CONFIG, tmp_path)
    with pytest.raises(CheckpointError, match="other trainer settings"):
        train(Regression(), replace(CONFIG, learning_rate=0.02), tmp_path)
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    state = json.loads((checkpoint / "state.json").read_text())
    (checkpoint / "state.json").write_text(json.dumps(state | {"processes": 2}))
    with pytest.raises(CheckpointError, match="a run of 2 processes, this one has 1"):
        train(Regression(), CONFIG, tmp_path)


def test_a_checkpoint_without_its_averaged_weights_is_refused(tmp_path: Path) -> None:
    train(Regression(), CONFIG, tmp_path)
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    (checkpoint / "average.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"averaged weights .* are missing"):
        train(Regression(), CONFIG, tmp_path)


def test_the_average_is_what_is_scored_and_saved(tmp_path: Path) -> None:
    train(Regression(), CONFIG, tmp_path)
    checkpoint = latest_checkpoint(tmp_path / "checkpoints")
    assert checkpoint is not None
    average = load_file(checkpoint / "average.safetensors")
    live = load_file(checkpoint / "model.safetensors")
    saved = load_file(tmp_path / "last/model.safetensors")
    assert all(torch.equal(saved[name], average[name]) for name in saved)
    assert any(not torch.equal(live[name], average[name]) for name in saved)


def test_the_scale_of_half_precision_survives_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(Accelerator):
        def __init__(self, **settings: object) -> None:
            super().__init__(**settings)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)

    monkeypatch.setattr(loop, "Accelerator", Scaled)

    def scale(folder: Path) -> object:
        checkpoint = latest_checkpoint(folder / "checkpoints")
        assert checkpoint is not None
        return json.loads((checkpoint / "state.json").read_text())["scaler"]

    train(Regression(), replace(CONFIG, sitting_s=1e-6), tmp_path / "resumed")
    assert scale(tmp_path / "resumed")["_growth_tracker"] == 1
    train(Regression(), CONFIG, tmp_path / "resumed")
    train(Regression(), CONFIG, tmp_path / "straight")
    assert scale(tmp_path / "resumed") == scale(tmp_path / "straight")
    assert scale(tmp_path / "straight")["scale"] == 4.0 * 2**3


class Stale(Regression):
    """Scores that get better until some evaluation and never again."""

    def evaluate(self) -> dict[str, float]:
        """Return the next score."""
        self.scored = [*getattr(self, "scored", []), 1.0]
        return {"error": 1.0 / min(len(self.scored), 2)}


def test_a_run_ends_early_after_evaluations_without_a_better_score(tmp_path: Path) -> None:
    patient = replace(CONFIG, steps=40, evaluate_every=2, patience=3)
    found = train(Stale(), patient, tmp_path)
    assert (found.step, found.finished, found.best) == (4 + 3 * 2, True, (0.5, 4))
    assert (tmp_path / "last/model.safetensors").is_file()
    again = train(Stale(), patient, tmp_path)
    assert (again.step, again.finished) == (10, True)
    later = train(Stale(), replace(patient, patience=4), tmp_path)
    assert later.step == 12
    assert train(Stale(), replace(CONFIG, steps=20, evaluate_every=2), tmp_path / "x").step == 20
