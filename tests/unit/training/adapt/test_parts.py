from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.encoders.catalog import load_encoder
from speechadapt.models.build import load
from speechadapt.text.alphabet import english
from speechadapt.training.adapt.parts import (
    check_whole,
    choose_alphabet,
    is_hub_id,
    load_base,
    new_head,
    save_whole,
)
from speechadapt.training.adapt.text import letters_of

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def whole(tiny_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny model with an English CTC head."""
    folder = tmp_path_factory.mktemp("whole")
    encoder = load_encoder(tiny_folder("w2v_bert"))
    torch.manual_seed(1)
    head = nn.Linear(encoder.dim, len(english()))
    save_whole(encoder, head, english(), 0.25, folder)
    return folder


def test_a_base_is_found_by_folder_or_bundled_name(tiny_folder: Folder) -> None:
    encoder, folder = load_base(str(tiny_folder("whisper")), "native")
    assert folder == tiny_folder("whisper")
    assert encoder.masks_padding
    assert not any(part.requires_grad for part in encoder.parameters())
    encoder, folder = load_base("mini-usm", "full")
    assert folder.name == "mini-usm"
    assert encoder.family == "w2v_bert"


def test_a_hub_id_is_told_from_a_folder(tiny_folder: Folder) -> None:
    assert is_hub_id("openai/whisper-small")
    assert not is_hub_id("mini-usm")
    assert not is_hub_id("")
    assert not is_hub_id(str(tiny_folder("ast")))


def test_the_alphabet_is_the_texts_or_the_bases(whole: Path) -> None:
    needed = letters_of(["cab"])
    assert choose_alphabet("texts", whole, needed) is needed
    assert choose_alphabet("base", whole, needed).symbols == english().symbols
    with pytest.raises(ConfigError, match=r"cannot write \['ß'\] of the training texts"):
        choose_alphabet("base", whole, letters_of(["aß"]))


def test_a_head_is_new_or_the_bases_own(whole: Path, tiny_folder: Folder) -> None:
    kept = new_head(32, english(), whole, keep=True)
    saved = load(whole).decoder.head
    assert torch.equal(kept.weight, saved.weight)
    assert not torch.equal(new_head(32, english(), whole, keep=False).weight, saved.weight)
    with pytest.raises(ConfigError, match="has 29 symbols and the run 4 others"):
        new_head(32, letters_of(["ab"]), whole, keep=True)
    with pytest.raises(CheckpointError, match="keep_head=true was asked for, but"):
        new_head(32, english(), tiny_folder("w2v_bert"), keep=True)


def test_a_whole_model_is_loaded_as_any_other(whole: Path, tiny_folder: Folder) -> None:
    recogniser = load(whole)
    base = load_encoder(tiny_folder("w2v_bert"))
    for name, part in recogniser.encoder.model.state_dict().items():
        stored = base.model.state_dict()[name].half().float()
        assert torch.equal(part, stored), name
    assert recogniser.margin_s == 0.25
    assert recogniser.decoder.alphabet.symbols == english().symbols


def test_making_a_whole_model_draws_no_random_numbers(tiny_folder: Folder, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_folder("w2v_bert"))
    head = nn.Linear(encoder.dim, len(english()))
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    save_whole(encoder, head, english(), 0.0, tmp_path)
    assert torch.equal(torch.rand(3), wanted)
    shutil.rmtree(tmp_path)


def test_a_family_without_such_a_model_is_not_fine_tuned_whole(tiny_folder: Folder) -> None:
    check_whole(load_encoder(tiny_folder("w2v_bert")))
    with pytest.raises(ConfigError, match="for w2v_bert and not for ast"):
        check_whole(load_encoder(tiny_folder("ast")))


def test_both_alphabets_together_keep_what_the_base_learnt(whole: Path) -> None:
    letters = choose_alphabet("both", whole, letters_of(["straße nº2"]))
    assert letters.symbols == (*english().symbols, "2", "º", "ß")
    assert letters.encode("aß")
    head = new_head(32, letters, whole, keep=True)
    saved = load(whole).decoder.head
    assert torch.equal(head.weight[:29], saved.weight)
    assert torch.equal(head.bias[:29], saved.bias)
    assert bool(head.weight[29:].any(dim=1).all())
