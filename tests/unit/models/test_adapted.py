"""Adapters and heads on disk, and the recognisers made of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from speechadapt.adapters import store
from speechadapt.adapters.attach import attach
from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.adapted import Head, base_name, read_head, save_adapted
from speechadapt.models.build import load
from speechadapt.text.alphabet import Alphabet

LETTERS = Alphabet(("<pad>", "|", *"خلف"))
CLIP = (np.random.default_rng(0).normal(size=20000) * 0.1).astype(np.float32)


def saved(base: Path, folder: Path, *, adapter: bool = True, head: bool = True) -> nn.Linear:
    """Write an adapter that matters, a head, or both, made on `base`; return the head."""
    encoder = load_encoder(base)
    torch.manual_seed(0)
    handle = attach(encoder, "lora", config={"rank": 2}) if adapter else None
    if handle is not None:
        for part in handle.parameters():
            nn.init.normal_(part, std=0.2)
    linear = nn.Linear(encoder.dim, len(LETTERS))
    nn.init.normal_(linear.weight)
    if head:
        described = Head(LETTERS, 0.125, "full", "ar")
        save_adapted(folder, encoder, handle, linear, described, training={}, scores={})
    else:
        assert handle is not None
        store.save(handle, folder)
    return linear


def edit(folder: Path, **changes: object) -> None:
    """Change what a folder says about its head."""
    path = folder / store.CONFIG
    details = json.loads(path.read_text())
    details["head"] |= changes
    path.write_text(json.dumps(details))


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter and head", "head alone"])
def test_a_recogniser_has_what_was_saved(ctc_folder: Path, tmp_path: Path, adapter: bool) -> None:
    head = saved(ctc_folder, tmp_path / "a", adapter=adapter)
    recogniser = load(ctc_folder, adapter=tmp_path / "a")
    assert torch.equal(recogniser.decoder.head.weight, head.weight)
    assert recogniser.decoder.alphabet == LETTERS
    assert (recogniser.margin_s, recogniser.language) == (0.125, "ar")
    assert set(recogniser.decode_batch([CLIP])[0].text) <= set("خلف ")
    frames, _ = recogniser.encoder.encode([torch.from_numpy(CLIP)])
    plain, _ = load(ctc_folder).encoder.encode([torch.from_numpy(CLIP)])
    assert torch.equal(frames, plain) == (not adapter)


def test_an_adapter_without_a_head_keeps_the_bases_decoder(
    ctc_folder: Path, tmp_path: Path
) -> None:
    saved(ctc_folder, tmp_path / "a", head=False)
    recogniser, plain = load(ctc_folder, adapter=tmp_path / "a"), load(ctc_folder)
    assert recogniser.decoder.alphabet == plain.decoder.alphabet
    assert recogniser.decode_batch([CLIP])[0].text != plain.decode_batch([CLIP])[0].text


def test_a_head_makes_a_recogniser_of_an_encoder_without_a_decoder(
    tiny_folder, tmp_path: Path
) -> None:
    saved(tiny_folder("ast"), tmp_path / "a")
    recogniser = load(tiny_folder("ast"), adapter=tmp_path / "a")
    assert isinstance(recogniser.decode_batch([CLIP])[0].text, str)


def test_the_padding_of_training_holds_unless_another_is_asked_for(
    tiny_folder, tmp_path: Path
) -> None:
    saved(tiny_folder("whisper"), tmp_path / "a")
    edit(tmp_path / "a", padding="native")
    assert load(tiny_folder("whisper"), adapter=tmp_path / "a").encoder.padding == "native"
    asked = load(tiny_folder("whisper"), adapter=tmp_path / "a", padding="full")
    assert asked.encoder.padding == "full"


def test_the_base_is_found_by_the_name_in_the_folder(tmp_path: Path) -> None:
    from speechadapt.models.card import find_bundled

    saved(find_bundled("mini-usm"), tmp_path / "a", adapter=False)
    recogniser = load(adapter=tmp_path / "a")
    assert recogniser.name == "mini-usm"
    assert recogniser.decoder.alphabet == LETTERS
    stored = store.read(tmp_path / "a")
    path = tmp_path / "a" / store.CONFIG
    path.write_text(json.dumps(dict(stored.details) | {"base": dict(stored.base, name=None)}))
    with pytest.raises(ConfigError, match="does not say which model it was trained on"):
        base_name(store.read(tmp_path / "a"))


def test_options_reach_the_decoder_and_wrong_ones_are_named(
    ctc_folder: Path, tmp_path: Path
) -> None:
    saved(ctc_folder, tmp_path / "a")
    assert load(ctc_folder, adapter=tmp_path / "a", beam_size=3).decoder.options.prefixes == 3
    assert load(ctc_folder, adapter=tmp_path / "a", language="ar").language == "ar"
    with pytest.raises(ConfigError, match="ctc has no option 'beam_sise'"):
        load(ctc_folder, adapter=tmp_path / "a", beam_sise=3)
    with pytest.raises(ConfigError, match="language 'de' was asked"):
        load(ctc_folder, adapter=tmp_path / "a", language="de")
    with pytest.raises(ConfigError, match="the adapter 'a', which has a CTC head"):
        load(ctc_folder, adapter=tmp_path / "a", decoder="whisper_ar")


@pytest.mark.parametrize("adapter", [True, False], ids=["adapter and head", "head alone"])
def test_another_base_is_refused(
    ctc_folder: Path, tiny_folder, tmp_path: Path, adapter: bool
) -> None:
    saved(ctc_folder, tmp_path / "a", adapter=adapter)
    with pytest.raises(CheckpointError, match="Load the base it names"):
        load(tiny_folder("w2v_bert"), adapter=tmp_path / "a")
    with pytest.raises(CheckpointError, match="Load it on an encoder of the family w2v_bert"):
        load(tiny_folder("ast"), adapter=tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kind": "rnnt"}, "kind 'rnnt', which is not ctc"),
        ({"symbols": ["a", "a", "|", "<pad>"]}, "found twice"),
        ({"symbols": ["<pad>", "|", "a"]}, "should hold .* but holds"),
        ({"margin_s": "much"}, "could not convert"),
        ({"specials": None}, "damaged or of a newer release"),
    ],
)
def test_a_head_that_cannot_be_used_is_refused(
    ctc_folder: Path, tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    saved(ctc_folder, tmp_path / "a", adapter=False)
    edit(tmp_path / "a", **changes)
    with pytest.raises(CheckpointError, match=problem):
        load(ctc_folder, adapter=tmp_path / "a")


def test_a_description_survives_its_json(ctc_folder: Path, tmp_path: Path) -> None:
    saved(ctc_folder, tmp_path / "a")
    assert read_head(store.read(tmp_path / "a")) == Head(LETTERS, 0.125, "full", "ar")
    saved(ctc_folder, tmp_path / "b", head=False)
    assert read_head(store.read(tmp_path / "b")) is None


def test_the_adapter_is_part_of_the_fingerprint(ctc_folder: Path, tmp_path: Path) -> None:
    saved(ctc_folder, tmp_path / "a")
    saved(ctc_folder, tmp_path / "b")
    plain = load(ctc_folder).fingerprint()["weights"]
    one, other = (
        load(ctc_folder, adapter=tmp_path / name).fingerprint()["weights"] for name in "ab"
    )
    assert one == other  # the same tensors under another name
    assert one["encoder"] == plain["encoder"]
    changed = load(ctc_folder, adapter=tmp_path / "a")
    with torch.no_grad():
        changed.encoder.followers[0].adapters()[0].change.up.add_(1)
    assert changed.fingerprint()["weights"]["adapter adapter"] != one["adapter adapter"]
