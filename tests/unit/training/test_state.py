from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from speechadapt.core.errors import CheckpointError
from speechadapt.training.state import latest_checkpoint, load_checkpoint, save_checkpoint


def stepped(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model and an optimiser that have made a step."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return a checkpoint of step 4."""
    model, optimizer = stepped(0)
    return save_checkpoint(tmp_path, 4, model.state_dict(), optimizer, None, {"best": None})


def test_a_checkpoint_restores_weights_and_moments(checkpoint: Path) -> None:
    (model, optimizer), (other, other_optimizer) = stepped(0), stepped(1)
    before = other_optimizer.state_dict()["state"][0]["exp_avg"].clone()
    state, average = load_checkpoint(checkpoint, other, other_optimizer)
    assert (state["step"], state["best"], average) == (4, None, None)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    moments = optimizer.state_dict()["state"]
    restored = other_optimizer.state_dict()["state"]
    for index, values in moments.items():
        assert all(torch.equal(restored[index][name], value) for name, value in values.items())
    assert not torch.equal(restored[0]["exp_avg"], before)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    model, optimizer = stepped(0)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, model.state_dict(), optimizer, None, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["latest", "step-00000002", "step-00000003"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_checkpoint_with_a_missing_tensor_is_refused_and_restores_nothing(
    checkpoint: Path, name: str
) -> None:
    tensors = load_file(checkpoint / name)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, checkpoint / name)
    model, optimizer = stepped(1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"missing \['bias'\]|holds 5 tensors; 6 were"):
        load_checkpoint(checkpoint, model, optimizer)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_tensors_of_another_shape_are_refused(checkpoint: Path) -> None:
    model = nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match=r"'weight' is \(2, 3\) in the file and \(2, 4\)"):
        load_checkpoint(checkpoint, model, torch.optim.AdamW(model.parameters()))


def test_a_file_cut_short_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_checkpoint(checkpoint, *stepped(1))


def test_a_half_written_checkpoint_is_passed_over(checkpoint: Path) -> None:
    folder = checkpoint.parent
    shutil.copytree(checkpoint, folder / ".tmp-step-00000006")
    assert latest_checkpoint(folder) == checkpoint


def test_a_pointer_to_a_lost_folder_falls_back_to_the_newest_whole_one(checkpoint: Path) -> None:
    folder = checkpoint.parent
    (folder / "latest").write_text("step-00000009")
    assert latest_checkpoint(folder) == checkpoint
    shutil.rmtree(checkpoint)
    assert latest_checkpoint(folder) is None
