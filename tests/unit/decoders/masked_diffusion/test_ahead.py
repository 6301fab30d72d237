from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed

from speechadapt.core.errors import ConfigError
from speechadapt.decoders.masked_diffusion.ahead import write_ahead
from speechadapt.decoders.masked_diffusion.canvas import Canvas
from speechadapt.decoders.masked_diffusion.network import DiffusionNetwork
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.strategies import fill, hidden_places
from speechadapt.decoders.masked_diffusion.tiny import tiny_network, tiny_vocabulary
from speechadapt.decoders.masked_diffusion.writer import Predictor
from speechadapt.engines.reuse import DistributedShare

PLAIN = DiffusionOptions(num_candidates=3, early_stop=False)


@pytest.fixture(scope="module")
def network() -> DiffusionNetwork:
    return tiny_network(tiny_vocabulary(), 10)


def canvas(options: DiffusionOptions, lengths: list[int]) -> Canvas:
    return Canvas(lengths, options.candidates, start_id=1, pad_id=0, mask_id=258, seeds=[*lengths])


def predictor(network: DiffusionNetwork, rows: int, lengths: list[int]) -> Predictor:
    frames = torch.randn(3, 30, 10, generator=torch.Generator().manual_seed(0))[:rows]
    condition = network.condition(frames, torch.tensor([30, 21, 9])[:rows])
    return Predictor(network, condition, lengths, [1])


@torch.no_grad()
def test_one_step_at_once_writes_what_plain_decoding_writes(network: DiffusionNetwork) -> None:
    lengths = [14, 9, 20]
    plain, overlapped = canvas(PLAIN, lengths), canvas(PLAIN, lengths)
    fill(predictor(network, 3, lengths), plain, PLAIN)
    hidden = hidden_places(overlapped, PLAIN)
    write_ahead(predictor(network, 3, lengths), overlapped, hidden, 1)
    assert torch.equal(plain.tokens, overlapped.tokens)
    assert torch.allclose(plain.log_probs, overlapped.log_probs, atol=1e-4)
    assert overlapped.passes == [4, 4, 4]


@torch.no_grad()
def test_steps_at_once_ask_less_often_and_do_not_hang_on_the_batch(
    network: DiffusionNetwork,
) -> None:
    options = replace(PLAIN, ahead=2)
    lengths = [14, 9]
    together, alone = canvas(options, lengths), canvas(options, [14])
    fill(predictor(network, 2, lengths), together, options)
    fill(predictor(network, 1, [14]), alone, options)
    assert together.passes == [3, 3]
    assert not bool((together.tokens == 258).any())
    assert torch.equal(together.tokens[0], alone.tokens[0])
    plain = canvas(PLAIN, lengths)
    fill(predictor(network, 2, lengths), plain, PLAIN)
    assert not torch.equal(plain.tokens, together.tokens)  # an approximation, and it shows here


def _work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    lengths = [14, 9]
    written = canvas(PLAIN, lengths)
    with torch.no_grad():
        predict = predictor(tiny_network(tiny_vocabulary(), 10), 2, lengths)
        write_ahead(predict, written, hidden_places(written, PLAIN), 2, DistributedShare())
    torch.save({"tokens": written.tokens, "passes": written.passes}, folder / f"{rank}")
    distributed.destroy_process_group()


@torch.no_grad()
def test_two_processes_write_what_one_writes_with_two_steps_at_once(
    network: DiffusionNetwork, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_work, args=(rank, tmp_path)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0, 0]
    batched = canvas(PLAIN, [14, 9])
    write_ahead(predictor(network, 2, [14, 9]), batched, hidden_places(batched, PLAIN), 2)
    for rank in range(2):
        found = torch.load(tmp_path / str(rank), weights_only=True)
        assert torch.equal(found["tokens"], batched.tokens)
        assert found["passes"] == batched.passes == [3, 3]


def test_guesses_that_are_drawn_are_not_reused() -> None:
    for changes in ({"temperature": 0.5}, {"diversity": "sample"}, {"strategy": "confidence"}):
        with pytest.raises(ConfigError, match="ahead=2 was asked for; guesses are reused by"):
            DiffusionOptions(ahead=2, **changes)


def test_as_many_processes_as_steps_at_once_share_them(network: DiffusionNetwork) -> None:
    class Three:
        rank, size = 0, 3

        def gather(self, guess: object) -> list[object]:
            return [guess] * 3

    with pytest.raises(ConfigError, match="3 processes were to share the steps of ahead=1"):
        fill(predictor(network, 1, [4]), canvas(PLAIN, [4]), PLAIN, Three())
