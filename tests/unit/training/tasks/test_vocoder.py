"""The training of vocoders: stages, resume, and what is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.restoration.vocoder_folder import load_vocoder, read_vocoder, save_vocoder
from speechadapt.training.loop import train
from speechadapt.training.optimiser import make_optimizer

Build = Callable[..., Any]


@pytest.mark.parametrize("kind", ["wavefit", "istft"])
def test_a_step_trains_both_sides_and_not_the_encoder(build: Build, kind: str) -> None:
    objective = build("vocoder", f"kind={kind}")
    loss, figures = objective(objective.batch(0, 0))
    loss.backward()
    assert {"adversarial", "features", "discriminators", "convergence"} <= figures.keys()
    assert all(
        one.grad is not None for name, one in objective.named_parameters() if "films" not in name
    )
    names = {name.split(".")[0] for name in objective.state_dict()}
    assert names == {"vocoder", "discriminators"}
    objective.eval()
    assert objective.evaluate() == objective.evaluate()


def test_a_batch_is_a_function_of_its_step(build: Build) -> None:
    objective = build("vocoder")
    batch, again = objective.batch(3, 0), objective.batch(3, 0)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    frames = objective.crop_frames
    assert batch["real"].shape == (len(batch["starts"]), frames * objective.hop)


def test_pieces_are_what_the_frames_stand_for(build: Build) -> None:
    objective = build("vocoder", "source.speed_prob=0", "data.edge_s=0")
    batch = objective.batch(0, 0)
    signal = objective.speech.rows(0, 0)[0].signal
    start = int(batch["starts"][0]) * objective.hop
    piece = torch.from_numpy(signal[start : start + batch["real"].shape[1]])
    torch.testing.assert_close(batch["real"][0, : len(piece)], piece)


def test_discriminators_come_in_at_their_step(build: Build) -> None:
    objective = build("vocoder", "adversarial_from=1", "trainer.accumulate=2")
    for micro, judged in ((0, False), (1, False), (2, True)):
        _, figures = objective(objective.batch(micro, 0))
        assert ("discriminators" in figures) == judged


def test_muon_takes_the_blocks_at_the_frame_rate_and_no_discriminator(build: Build) -> None:
    for kind, net in (("istft", "vocoder.net"), ("wavefit", "vocoder.frame_net")):
        objective = build("vocoder", f"kind={kind}")
        names = {id(one): name for name, one in objective.named_parameters()}
        made = make_optimizer(objective, "muon", 1e-3, 0.0, (0.8, 0.99), objective.groups())
        taken = [group for group in made.param_groups if group.get("orthogonal")]
        found = {names[id(one)] for group in taken for one in group["params"]}
        assert found == {f"{net}.layers.0.up.weight", f"{net}.layers.0.down.weight"}


def test_a_run_resumes_exactly_and_leaves_a_vocoder(build: Build, tmp_path: Path) -> None:
    words = ("trainer.average=0.5", "trainer.steps=2", "trainer.checkpoint_every=1")
    whole = build("vocoder", *words)
    train(whole, whole.config.trainer, tmp_path / "whole")
    first = build("vocoder", *words)
    short = replace(first.config.trainer, sitting_s=1e-6)
    assert train(first, short, tmp_path / "parts").step == 1
    second = build("vocoder", *words)
    assert train(second, second.config.trainer, tmp_path / "parts").finished
    for key, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key
    one, other = (load_vocoder(tmp_path / name / "last") for name in ("whole", "parts"))
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    assert read_vocoder(tmp_path / "whole" / "last")["features"]["layer"] == 1


def test_stages_follow_one_another(build: Build, tmp_path: Path) -> None:
    clean = build("clean")
    clean.save(tmp_path / "cleaner")
    istft = build("vocoder", "kind=istft")
    istft.save(tmp_path / "istft")
    later = build(
        "vocoder",
        "kind=istft",
        f"cleaner={tmp_path / 'cleaner'}",
        f"start={tmp_path / 'istft'}",
    )
    for key, value in istft.vocoder.state_dict().items():
        assert torch.equal(later.vocoder.state_dict()[key], value)
    batch, plain = later.batch(0, 0), istft.batch(0, 0)
    assert torch.equal(batch["real"], plain["real"])
    assert not torch.equal(batch["features"], plain["features"])
    iterated = build("vocoder", "wavefit.initial=istft", *_same_istft(tmp_path))
    for key, value in istft.vocoder.state_dict().items():
        assert torch.equal(iterated.vocoder.start.state_dict()[key], value)


def _same_istft(folder: Path) -> tuple[str, ...]:
    return (f"istft_start={folder / 'istft'}", "wavefit.istft.width=8", "wavefit.istft.layers=1")


def test_folders_that_do_not_fit_are_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set istft_start=FOLDER"):
        build("vocoder", "wavefit.initial=istft")
    with pytest.raises(ConfigError, match="cleaner='nowhere' is no folder"):
        build("vocoder", "cleaner=nowhere")
    objective = build("vocoder", "kind=istft")
    save_vocoder(objective.vocoder, tmp_path / "v", {})
    with pytest.raises(CheckpointError, match="Give it the same settings"):
        build("vocoder", "kind=istft", "istft.width=9", f"start={tmp_path / 'v'}")
