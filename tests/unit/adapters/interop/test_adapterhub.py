from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechadapt.adapters.attach import active, attachments
from speechadapt.adapters.interop import adapterhub
from speechadapt.adapters.interop.foreign import install
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import CheckpointError
from tests.adapterhub_golden import GOLDEN, METHODS, base, frames, golden, read


def changed(tmp_path: Path, name: str, settings: dict[str, Any]) -> Path:
    copy = tmp_path / name
    shutil.copytree(GOLDEN / name, copy)
    path = copy / "adapter_config.json"
    details = json.loads(path.read_text())
    details["config"] |= settings
    path.write_text(json.dumps(details))
    return copy


def test_base_gives_the_golden_frames() -> None:
    assert (frames(base()) - golden("base")).abs().max() <= 1e-6


@pytest.mark.parametrize("name", sorted(METHODS))
def test_imported_adapter_gives_the_frames_of_the_library(name: str) -> None:
    encoder = base()
    foreign = read(GOLDEN / name, encoder)
    assert foreign.method == METHODS[name]
    handle = install(encoder, foreign, "imported")
    assert (golden(name) - golden("base")).abs().max() > 0.1
    assert (frames(encoder) - golden(name)).abs().max() <= 1e-6
    assert all("decoder" in path for path in handle.notes["training"]["imported"]["left_out"])
    with active(encoder, None):
        assert (frames(encoder) - golden("base")).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("before", "after", "residual", "same_as"),
    [(True, False, False, "seq_bn"), (False, True, False, None), (False, True, True, None)],
)
def test_switches_of_the_config_decide_the_method(
    before: bool, after: bool, residual: bool, same_as: str | None, tmp_path: Path
) -> None:
    switches = {
        "original_ln_before": before,
        "original_ln_after": after,
        "residual_before_ln": residual,
    }
    encoder = base()
    foreign = read(changed(tmp_path, "seq_bn", switches), encoder)
    install(encoder, foreign, "imported")
    if same_as is None:
        assert foreign.method == "houlsby"
        assert (frames(encoder) - golden("seq_bn")).abs().max() > 1e-2
    else:
        assert (frames(encoder) - golden(same_as)).abs().max() <= 1e-6


def test_scale_in_series_multiplies_what_is_added(tmp_path: Path) -> None:
    encoder = base()
    once = install(encoder, read(GOLDEN / "seq_bn", encoder), "once")
    thrice = install(
        encoder, read(changed(tmp_path, "seq_bn", {"scaling": 3.0}), encoder), "thrice"
    )
    x, y = torch.randn(1, 5, 16), torch.randn(1, 5, 16)
    role = "layer.0.ffn"
    added = [one.module.by_role()[role].leave(x, y, Context()) - y for one in (once, thrice)]
    torch.testing.assert_close(3 * added[0], added[1])


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("lora", {"use_dora": True}, "was saved with use_dora=True, which no method"),
        ("lora", {"composition_mode": "scale"}, "multiplies outputs"),
        ("seq_bn", {"phm_layer": True}, "was saved with phm_layer=True"),
        ("seq_bn", {"use_gating": True}, "was saved with use_gating=True"),
        ("seq_bn", {"inv_adapter": "nice"}, "was saved with inv_adapter='nice'"),
        ("seq_bn", {"non_linearity": "mish"}, "bends by 'mish'. Known are"),
        ("seq_bn", {"residual_before_ln": "post_add"}, "drops the residual stream"),
        (
            "seq_bn",
            {"original_ln_before": False, "original_ln_after": False},
            "drops the residual stream",
        ),
        ("seq_bn", {"ln_before": True}, "is not what its config describes"),
        ("seq_bn", {"architecture": "lora", "r": 2, "alpha": 2}, "which is no part of the adapter"),
    ],
)
def test_what_cannot_be_represented_is_refused(
    name: str, settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    encoder = base()
    with pytest.raises(CheckpointError, match=said):
        read(changed(tmp_path, name, settings), encoder)
    assert attachments(encoder) == {}


def test_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    copy = changed(tmp_path, "seq_bn", {})
    details = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**details, "model_type": "bert"}))
    with pytest.raises(CheckpointError, match=r"of type 'bert', this encoder is of type 'whisper'"):
        read(copy, base())


def test_decoder_and_pickle_need_to_be_asked_for() -> None:
    encoder = base()
    with pytest.raises(CheckpointError, match=r"modules outside the encoder .* \(--encoder-only\)"):
        adapterhub.read(GOLDEN / "seq_bn", encoder)
    with pytest.raises(
        CheckpointError, match=r"only the pickle pytorch_adapter\.bin, which is not"
    ):
        adapterhub.read(GOLDEN / "normed", encoder, encoder_only=True)


def test_bottlenecks_of_several_widths_are_refused(tmp_path: Path) -> None:
    copy = changed(tmp_path, "seq_bn", {})
    weights = load_file(copy / "adapter.safetensors")
    stem = "encoder.layers.1.output_adapters.adapters.seq_bn."
    weights[f"{stem}adapter_down.0.weight"] = torch.zeros(2, 16)
    save_file(weights, copy / "adapter.safetensors")
    with pytest.raises(CheckpointError, match=r"bottlenecks of 2 widths \(\[2, 4\]\)"):
        read(copy, base())
