from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from speechadapt.data.manifest import Utterance
from speechadapt.data.recombine import Recombiner
from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
from speechadapt.decoders.masked_diffusion.losses import draw_ratios, hide, masked_cross_entropy
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.shape import DiffusionShape
from speechadapt.decoders.masked_diffusion.store import read_config, read_folder, read_heard
from speechadapt.decoders.masked_diffusion.tiny import tiny_vocabulary
from speechadapt.training.loop import TrainerConfig, train
from speechadapt.training.tasks.diffusion import Config
from tests.tiny_tasks import diffusion_folder

Build = Callable[..., Any]


@pytest.fixture(scope="module")
def hearing(build: Build) -> Any:
    """Return a tiny objective of the stage that trains everything."""
    return build("diffusion")


@pytest.fixture(scope="module")
def text_stage(build: Build) -> Any:
    """Return a tiny objective of the stage of text alone."""
    return build("diffusion", "stage=text", "masking.weighted=true")


def gradients(objective: Any) -> dict[str, bool]:
    objective.train()
    loss, _ = objective(objective.batch(0, 0))
    loss.backward()
    return {name: part.grad is not None for name, part in objective.named_parameters()}


def test_a_batch_holds_tokens_and_features_and_is_the_same_again(
    build: Build, hearing: Any
) -> None:
    torch.manual_seed(5)
    first, again = hearing.batch(2, 0), build("diffusion").batch(2, 0)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(first["features"]) == len(first["tokens"])
    assert not torch.equal(first["hidden"], hearing.batch(3, 0)["hidden"])


def test_a_step_reaches_everything_but_the_frozen_encoder(hearing: Any) -> None:
    reached = gradients(hearing)
    assert all(reached.values())
    assert not any("encoder" in name for name in reached)
    frozen = hearing._encoder[0].model.parameters()
    assert all(part.grad is None and not part.requires_grad for part in frozen)


def test_the_adapter_stage_trains_what_hears_alone(build: Build, base: Path) -> None:
    objective = build("diffusion", "stage=adapter", f"init={diffusion_folder(base)}")
    trained = {name for name, part in objective.named_parameters() if part.requires_grad}
    assert {name for name, is_so in gradients(objective).items() if is_so} == trained
    ears = ("cross", "norm_cross", "bridge", "length_head")
    assert all(any(f".{ear}." in name for ear in ears) for name in trained)
    assert any(name.endswith("cross.gate") for name in trained)
    text = read_folder(diffusion_folder(base))[0].state_dict()
    own = objective.network.state_dict()
    assert all(torch.equal(own[name], text[name]) for name in text)
    assert objective.groups() == {}


def test_a_stage_that_asks_for_streams_trains_them(
    build: Build, base: Path, tmp_path: Path
) -> None:
    init, wide = f"init={diffusion_folder(base)}", ("model.streams=2", "model.prefix=3")
    objective = build("diffusion", "stage=adapter", init, *wide)
    streams = {name for name, is_so in gradients(objective).items() if is_so and "streams" in name}
    assert streams == {
        "network.streams.prefixes",
        *(f"network.streams.mixer.{part}" for part in ("inner.weight", "inner.bias")),
        *(f"network.streams.mixer.{part}" for part in ("outer.weight", "outer.bias")),
    }
    objective.eval()
    with torch.no_grad():
        assert set(objective.evaluate()) == {"wer", "tones"}
    objective.save(tmp_path)
    later = build("diffusion", f"init={tmp_path}")
    assert later.network.shape.streams == 2
    assert not any(name.startswith(start) for start in later.groups() for name in streams)


def test_the_decoder_stage_slows_the_lower_layers(build: Build, base: Path) -> None:
    init = f"init={diffusion_folder(base)}"
    rates = {
        name: group.rate
        for name, group in build("diffusion", init, "rates.layer_decay=0.5").groups().items()
    }
    assert rates["network.layers.1."] == 1.0
    assert rates["network.layers.0."] == 0.5
    assert rates["network.layers.0.cross."] == 1.0
    assert rates["network.embed."] == rates["network.head."] == 0.25
    assert build("diffusion", init, "rates.layer_decay=1").groups() == {}


def test_the_text_stage_needs_no_audio_and_scores_the_bound(text_stage: Any) -> None:
    batch = text_stage.batch(0, 0)
    assert "features" not in batch
    assert text_stage.heard is None
    loss, figures = text_stage(batch)
    assert float(loss.detach()) != pytest.approx(figures["hidden"])
    text_stage.eval()
    with torch.no_grad():
        scores = text_stage.evaluate()
        assert scores == text_stage.evaluate()
    assert scores["loss"] == pytest.approx(torch.tensor(260.0).log().item(), rel=0.4)


def test_other_texts_are_read_by_their_share(build: Build, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("a rare text\n\nanother\n")
    objective = build("diffusion", "stage=text", f"texts.file={path}", "texts.share=1")
    batch = objective.batch(0, 0)
    texts = {
        objective.vocabulary.text(objective.vocabulary.until_end(row))
        for row in batch["tokens"].tolist()
    }
    assert texts <= {"a rare text", "another"}
    assert objective.summary()["texts"] == "2 lines"


def test_slots_take_other_values_in_the_share_asked_for(build: Build, tmp_path: Path) -> None:
    objective = build("diffusion", "stage=text", "texts.recombine=1", "batch.join_prob=0")
    items = [
        Utterance("x", text=f"{verb} {thing}", id=verb, extra={"slots": {"thing": thing}})
        for verb, thing in (("bring", "tea"), ("take", "milk"))
    ]
    objective._recombiner = Recombiner(items)
    objective.speech.plan.utterances[:] = [items[0]] * len(objective.speech.plan.utterances)
    texts = {
        objective.vocabulary.text(objective.vocabulary.until_end(row))
        for step in range(6)
        for row in objective.batch(step, 0)["tokens"].tolist()
    }
    assert texts == {"bring tea", "bring milk"}
    assert objective.summary()["recombined"] == "2 sentences with slots"


def test_more_draws_of_a_row_are_averaged(build: Build) -> None:
    for weighted in ("true", "false"):
        settings = (f"masking.weighted={weighted}", "model.dropout=0", "masking.ratio=[1,1]")
        several, one = (build("diffusion", *settings, f"masking.draws={n}") for n in (3, 1))
        several.load_state_dict(one.state_dict())
        # with every token hidden each draw costs the same, so their mean is that of one
        losses = [float(made(made.batch(0, 0))[0].detach()) for made in (several, one)]
        assert losses[0] == pytest.approx(losses[1], rel=0.2)


def test_a_share_of_the_rows_holds_noise_and_no_text(build: Build) -> None:
    for share, silent in ((0.0, False), (1.0, True)):
        batch = build("diffusion", f"no_speech_prob={share}").batch(0, 0)
        assert all((count == 0) == silent for count in batch["counts"].tolist())


def test_recordings_that_come_again_are_encoded_once_and_hidden_anew(build: Build) -> None:
    objective = build("diffusion", "repeats=2", "model.dropout=0")
    objective.eval()
    first = {objective._repeats.source(step): objective.batch(step, 0) for step in (0, 1)}
    with torch.no_grad():
        frames = {name: objective._frames(batch) for name, batch in first.items()}
    for step in (2, 3):
        source = objective._repeats.source(step)
        again = objective.batch(step, 0)
        assert "features" not in again
        assert torch.equal(again["counts"], first[source]["counts"])
        assert not torch.equal(again["ratios"], first[source]["ratios"])
        for now, before in zip(objective._frames(again), frames[source], strict=True):
            assert torch.equal(now, before)


def test_a_saved_model_names_its_encoder_and_can_be_gone_on_from(
    build: Build, hearing: Any, tmp_path: Path
) -> None:
    hearing.save(tmp_path)
    heard = read_heard(read_config(tmp_path), "toy")
    assert heard == hearing.heard
    assert heard is not None
    assert len(heard.fingerprint) == 64
    again = build("diffusion", f"init={tmp_path}", "trainer.seed=9")
    expected = hearing.network.state_dict()
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, expected[name].half().float()), name
    assert again.vocabulary.encode("two") == hearing.vocabulary.encode("two")


def test_dev_sets_are_scored_by_corpus(hearing: Any) -> None:
    hearing.eval()
    with torch.no_grad():
        scores = hearing.evaluate()
    assert set(scores) == {"wer", "tones"}


def test_settings_that_do_not_fit_are_named(base: Path) -> None:
    def found(**settings: Any) -> str:
        return "\n".join(Config(**{"encoder": str(base), **settings}).problems())

    assert "init=FOLDER of a run of stage=text" in found(stage="adapter")
    assert "init '/nowhere.safetensors' is no file" in found(init="/nowhere.safetensors")
    assert "tokenizer=FOLDER" in found(init="/nowhere.safetensors")
    assert "padding is one of full, native, got 'x'" in found(padding="x")
    assert "encoder: there is no bundled model or folder 'minni'" in found(encoder="minni")


@pytest.mark.parametrize("repeats", [0, 2])
def test_a_stopped_run_goes_on_as_if_nothing_were(
    build: Build, tmp_path: Path, repeats: int
) -> None:
    config = TrainerConfig(
        steps=5, warmup_steps=1, evaluate_every=3, checkpoint_every=2, average=0.9, log_every=1
    )

    def run(folder: Path, stop_at: int = 0) -> Any:
        objective = build("diffusion", f"repeats={repeats}")
        passes: list[None] = []

        def ask(*_: object) -> None:
            passes.append(None)
            if objective.training and len(passes) == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        objective.register_forward_pre_hook(ask)
        return train(objective, config, folder)

    assert run(tmp_path / "resumed", stop_at=3).step == 3
    assert run(tmp_path / "resumed").finished
    assert run(tmp_path / "straight").finished
    one, other = (
        load_file(tmp_path / name / "last/model.safetensors") for name in ("straight", "resumed")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


LETTERS = "abcde"


def spoken(rows: int, generator: torch.Generator) -> tuple[list[str], Tensor, Tensor]:
    """Make texts of two to five letters, and frames in which each sounds for two to four."""
    sounds = torch.eye(len(LETTERS)) * 3
    texts, signals = [], []
    for _ in range(rows):
        count = int(torch.randint(2, 6, (1,), generator=generator))
        letters = torch.randint(len(LETTERS), (count,), generator=generator)
        lasts = torch.randint(2, 5, (count,), generator=generator)
        frames = sounds[letters].repeat_interleave(lasts, 0)
        marks = torch.zeros(len(frames), 1)
        marks[lasts.cumsum(0) - 1] = 3.0  # the last frame of each letter
        noise = 0.1 * torch.randn(len(frames), len(LETTERS) + 1, generator=generator)
        texts.append("".join(LETTERS[letter] for letter in letters))
        signals.append(torch.cat([frames, marks], 1) + noise)
    lengths = torch.tensor([len(one) for one in signals])
    return texts, torch.nn.utils.rnn.pad_sequence(signals, batch_first=True), lengths


def test_a_tiny_network_learns_to_write_what_it_hears() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    vocabulary = tiny_vocabulary()
    network = DiffusionNetwork(DiffusionShape(258, 32, 2, 4, 64, 10, condition_dim=6))
    optimizer = torch.optim.AdamW(network.parameters(), 6e-3)
    losses = []
    for _ in range(110):
        texts, frames, lengths = spoken(24, generator)
        tokens = torch.full((24, 8), vocabulary.pad_id)
        tokens[:, 0] = vocabulary.start_id
        for row, text in enumerate(texts):
            written = vocabulary.encode(text)
            tokens[row, 1 : len(written) + 1] = torch.tensor(written)
        allowed = torch.ones(tokens.shape, dtype=torch.bool)
        allowed[:, 0] = False
        hidden = hide(allowed, draw_ratios(24, generator, 0.3, 1.0), generator)
        given = tokens.masked_fill(hidden, network.shape.mask_id)
        states = network(given[:, None], None, network.condition(frames, lengths))[:, 0]
        log_probs = network.head(states[hidden]).log_softmax(-1)
        assert network.length_head is not None
        counts = torch.tensor([len(vocabulary.encode(text)) for text in texts])
        length = -network.length_head(frames, lengths).gather(1, counts[:, None]).mean()
        loss = masked_cross_entropy(log_probs, tokens, hidden) + 0.3 * length
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    texts, frames, lengths = spoken(40, generator)
    decoder = DiffusionDecoder(network, vocabulary, DiffusionOptions(num_candidates=5)).eval()
    found = decoder.decode(frames, lengths, 50.0)
    right = sum(one.text == text for one, text in zip(found, texts, strict=True))
    assert right >= 36
    assert max(one.details["positions"] for one in found) < 10  # the length head saves positions
