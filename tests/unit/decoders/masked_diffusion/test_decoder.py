from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.base import Hypothesis
from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.decoders.masked_diffusion.vocabulary import Vocabulary

DIM = 10
VOCABULARY = tiny_vocabulary()
TINY = DiffusionOptions(num_candidates=3, num_steps=2)


def decoder(**changes: object) -> DiffusionDecoder:
    return DiffusionDecoder(tiny_network(VOCABULARY, DIM), VOCABULARY, replace(TINY, **changes))


def written(made: DiffusionDecoder, *lengths: int) -> list[Hypothesis]:
    heard = torch.randn(len(lengths), 60, DIM, generator=torch.Generator().manual_seed(0))
    return made.eval().decode(heard, torch.tensor(lengths), 50.0)


def silent(made: DiffusionDecoder) -> DiffusionDecoder:
    """Make a decoder write the end everywhere."""
    with torch.no_grad():
        made.network.norm.weight.zero_()
        made.network.norm.weight[0] = 1.0
        made.network.embed.weight[:, 0] = 30.0
        made.network.head.weight.zero_()
        made.network.head.weight[VOCABULARY.pad_id, 0] = 20.0
    return made


@pytest.mark.parametrize("select", ["confidence", "mbr", "rover", "mbr+confidence"])
def test_every_selection_writes_the_same_in_any_batch(select: str) -> None:
    made = decoder(select=select, num_candidates=4, word_timestamps=True)
    together = written(made, 60, 33)
    heard = torch.randn(2, 60, DIM, generator=torch.Generator().manual_seed(0))
    (alone,) = made.decode(heard[1:, :33], torch.tensor([33]), 50.0)
    assert alone.text == together[1].text
    assert [word.text for word in alone.words] == alone.text.split()


def test_another_seed_gives_another_text() -> None:
    texts = {written(decoder(seed=seed, num_candidates=1), 60)[0].text for seed in range(4)}
    assert len(texts) > 1


def test_candidates_are_reported_on_request() -> None:
    plain, full = (written(decoder(keep_candidates=keep), 60)[0] for keep in (False, True))
    assert "candidates" not in plain.details
    listed = full.details["candidates"]
    assert len(listed) == 3
    assert full.text in [one["text"] for one in listed]
    assert set(listed[0]) == {"text", "confidence", "expected_errors"}
    assert plain.text == full.text


def test_a_model_that_hears_nothing_writes_nothing() -> None:
    (found,) = written(silent(decoder()), 60)
    assert (found.text, found.tokens, found.words, found.flags) == ("", (), (), ())
    assert found.avg_logprob > -1e-3


def test_a_text_that_fills_every_position_is_flagged() -> None:
    made = decoder(length_head=False)
    with torch.no_grad():
        made.network.embed.weight[:, 0] = 30.0
        made.network.norm.weight.zero_()
        made.network.norm.weight[0] = 1.0
        made.network.head.weight.zero_()
        made.network.head.weight[ord("b"), 0] = 20.0
    (found,) = written(made, 60)
    assert found.flags == ("truncated", "compression")
    assert len(found.tokens) == 23


def test_random_weights_are_doubted() -> None:
    (found,) = written(decoder(), 60)
    assert {"logprob", "disagreement"} <= set(found.flags)
    (trusted,) = written(decoder(logprob_threshold=None, disagreement_threshold=None), 60)
    assert not {"logprob", "disagreement"} & set(trusted.flags)
    assert trusted.text == found.text


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_tenth_of_a_second_is_decoded_or_doubted(length: int) -> None:
    (found,) = written(decoder(), length)
    assert found.text == "" or found.flags


def test_empty_audio_is_not_decoded() -> None:
    first, second = written(decoder(), 0, 60)
    assert first == Hypothesis("")
    assert second.text
    assert decoder().decode(torch.zeros(1, 0, DIM), torch.tensor([0]), 50.0) == [Hypothesis("")]


def test_what_belongs_apart_is_refused() -> None:
    wider = Vocabulary(VOCABULARY.tokenizer, 1, 0, 300)
    with pytest.raises(CheckpointError, match="300 tokens, the network writes 258"):
        DiffusionDecoder(tiny_network(VOCABULARY, DIM), wider)
    with pytest.raises(CheckpointError, match="asked of a network of text alone"):
        DiffusionDecoder(tiny_network(VOCABULARY), VOCABULARY)
    from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork

    deaf = DiffusionNetwork(
        DiffusionShape(258, 24, 1, 2, 16, condition_dim=DIM, frame_code="none", length_head=False)
    )
    with pytest.raises(CheckpointError, match="length_head was asked of a model that has none"):
        DiffusionDecoder(deaf, VOCABULARY, DiffusionOptions(length_head=True))


def test_a_folder_gives_the_decoder_that_was_saved(tmp_path: Path) -> None:
    made = decoder()
    save_folder(tmp_path, made.network, VOCABULARY, Heard("x", "y"), torch.float32)
    options = {"num_candidates": 3, "num_steps": 2}
    read = DiffusionDecoder.from_folder(tmp_path, options)
    assert written(read, 60, 20) == written(made, 60, 20)
    assert read.settings() == made.settings()
    with pytest.raises(ConfigError, match=r"has no option 'steps'\. Did you mean num_steps"):
        DiffusionDecoder.from_folder(tmp_path, {"steps": 3})
