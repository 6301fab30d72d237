from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speechadapt.adapters.attach import attach, remove
from speechadapt.adapters.interop import adapterhub_export
from speechadapt.adapters.interop.foreign import install
from speechadapt.core.errors import ConfigError
from tests.adapterhub_golden import GOLDEN, METHODS, base, frames, golden, read


@pytest.mark.parametrize("name", sorted(METHODS))
def test_exported_folder_holds_the_tensors_of_the_library(name: str, tmp_path: Path) -> None:
    encoder = base()
    handle = install(encoder, read(GOLDEN / name, encoder), name)
    adapterhub_export.write(handle, tmp_path)
    wrote = load_file(tmp_path / "adapter.safetensors")
    kept = GOLDEN / name / "adapter.safetensors"
    theirs = (
        load_file(kept)
        if kept.is_file()
        else torch.load(kept.with_name("pytorch_adapter.bin"), weights_only=True)
    )
    of_encoder = {key: value for key, value in theirs.items() if key.startswith("encoder.")}
    assert sorted(wrote) == sorted(of_encoder)
    assert all(torch.equal(wrote[key], of_encoder[key]) for key in wrote)
    said, meant = (
        json.loads((folder / "adapter_config.json").read_text())["config"]
        for folder in (tmp_path, GOLDEN / name)
    )
    shared = (said.keys() & meant.keys()) - {"init_weights"}
    assert {"alpha", "r"} <= shared or {"non_linearity", "original_ln_before", "scaling"} <= shared
    assert {key: said[key] for key in shared} == {key: meant[key] for key in shared}
    remove(encoder, name)
    install(encoder, read(tmp_path, encoder), name)
    assert (frames(encoder) - golden(name)).abs().max() <= 1e-6


def test_exports_without_counterpart_are_refused(tmp_path: Path) -> None:
    encoder = base()
    conv = attach(encoder, "lora", name="conv", config={"rank": 2}, roles=["stem.conv.1"])
    with pytest.raises(ConfigError, match=r"stands at .*, where AdapterHub has no LoRA"):
        adapterhub_export.write(conv, tmp_path)
    normed = attach(encoder, "parallel", name="normed", config={"bottleneck": 4, "input": "normed"})
    with pytest.raises(ConfigError, match=r"'parallel' was to be exported to AdapterHub"):
        adapterhub_export.write(normed, tmp_path)
    with_norms = attach(encoder, "lora", name="n", config={"rank": 2}, train_norms="all")
    with pytest.raises(ConfigError, match=r"with 5 trained norms was to be exported"):
        adapterhub_export.write(with_norms, tmp_path)
