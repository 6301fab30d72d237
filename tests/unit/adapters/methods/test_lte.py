"""LoRA-the-Explorer: what workers know between merges, the published bookkeeping, processes."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn

from speechadapt.adapters.methods.lte import METHOD, LteAdapter, LteConfig, head_bytes
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import ConvShape, Site, at
from tests.processes import in_processes, learned

LINEAR = at("layer.0.ffn.up", "fc1", 12, 10)
CONV = Site("stem.conv.1", "c", "c", 12, 8, kind="Conv1d", conv=ConvShape(3, 2, 1))
NOTHING = Context()
CONFIG = LteConfig(heads=2, rank=3, alpha=6.0, merge_every=2)
RATE = 0.02


def made(config: LteConfig = CONFIG, site: Site = LINEAR) -> tuple[LteAdapter, nn.Linear]:
    torch.manual_seed(0)
    module = nn.Linear(12, 10).requires_grad_(False)
    return LteAdapter(site, config, None).train(), module


def data(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 5, 12, generator=generator), torch.randn(
        rows, 5, 10, generator=generator
    )


def train(adapter: LteAdapter, module: nn.Linear, x: Tensor, target: Tensor, steps: int) -> None:
    optimiser = torch.optim.Adam(adapter.parameters(), lr=RATE)
    for step in range(steps):
        optimiser.zero_grad()
        (adapter.leave(x, module(x), NOTHING) - target).square().mean().backward()
        optimiser.step()
        METHOD.after_step([adapter], step + 1)


def test_heads_start_orthogonal_at_the_stated_scale_and_change_nothing() -> None:
    adapter, module = made()
    for head in adapter.down.detach():
        torch.testing.assert_close(head @ head.T, 12 / 3 * torch.eye(3), rtol=0, atol=1e-5)
    assert not torch.allclose(adapter.down[0], adapter.down[1])
    x, _ = data(4)
    y = module(x)
    assert torch.equal(adapter.leave(x, y, NOTHING), y)
    assert torch.equal(adapter.eval().leave(x, y, NOTHING), y)


def test_merging_every_step_with_one_set_of_rows_is_a_lora_of_many_heads() -> None:
    adapter, module = made(LteConfig(heads=3, rank=2, alpha=6.0, merge_every=1))
    x, target = data(2)
    downs = [head.clone().requires_grad_() for head in adapter.down.detach()]
    ups = [torch.zeros(10, 2, requires_grad=True) for _ in downs]
    optimiser = torch.optim.Adam([*downs, *ups], lr=RATE)
    for _ in range(6):
        optimiser.zero_grad()
        changes = [x @ down.T @ up.T for down, up in zip(downs, ups, strict=True)]
        (module(x) + 3.0 / 3 * sum(changes) - target).square().mean().backward()
        optimiser.step()
    train(adapter, module, x.repeat(3, 1, 1), target.repeat(3, 1, 1), 6)
    torch.testing.assert_close(adapter.down, torch.stack(downs), rtol=0, atol=1e-5)
    torch.testing.assert_close(adapter.up, torch.stack(ups), rtol=0, atol=1e-5)
    assert float(adapter.up.detach().abs().max()) > 0.05


def test_it_keeps_the_books_of_the_published_form_without_a_copy_of_the_weight() -> None:
    """Published: every worker has a weight of its own, from which its merged head is subtracted."""
    adapter, module = made()
    x, target = data(4)
    weight, scale = module.weight.clone(), 6.0 / 3
    workers = []
    for down in adapter.down.detach():
        head = [nn.Parameter(down.clone()), nn.Parameter(torch.zeros(10, 3))]
        optimiser, last = torch.optim.Adam(head, lr=RATE), [torch.zeros(10, 12)]
        workers.append((head, optimiser, weight.clone(), last))
    for step in range(6):
        for number, (head, optimiser, own, _) in enumerate(workers):
            rows = slice(2 * number, 2 * number + 2)
            optimiser.zero_grad()
            y = x[rows] @ own.T + module.bias + scale * x[rows] @ head[0].T @ head[1].T
            (y - target[rows]).square().mean().backward()
            optimiser.step()
        if step % 2:
            products = [scale * (head[1] @ head[0]).detach() for head, *_ in workers]
            pairs = zip(products, workers, strict=True)
            weight = weight + sum(now - kept[0] for now, (*_, kept) in pairs) / 2
            for now, (_, _, own, kept) in zip(products, workers, strict=True):
                kept[0] = now
                own.copy_(weight - now)
    train(adapter, module, x, target, 6)
    change = adapter.delta(module).weight.detach()
    assert float(change.abs().max()) > 0.1
    torch.testing.assert_close(module.weight + change, weight, rtol=1e-4, atol=1e-5)


def test_between_merges_no_worker_sees_what_another_learns() -> None:
    adapter, module = made()
    x, target = data(4)
    train(adapter, module, x, target, 2)
    y = module(x)
    before = adapter.leave(x, y, NOTHING)
    used = adapter.eval().leave(x, y, NOTHING)
    torch.testing.assert_close(before, used)  # right after a merge all know the same
    with torch.no_grad():
        adapter.train().up[1] += 0.5
    after = adapter.leave(x, y, NOTHING)
    assert torch.equal(after[:2], before[:2])
    assert not torch.allclose(after[2:], before[2:], atol=0.1)
    adapter.merge()
    assert not torch.allclose(adapter.leave(x, y, NOTHING)[:2], before[:2], atol=0.1)


@pytest.mark.parametrize("site", [LINEAR, CONV], ids=lambda site: site.role)
def test_the_change_it_merges_is_what_it_adds(site: Site) -> None:
    torch.manual_seed(0)
    adapter = LteAdapter(site, CONFIG, None).eval()
    module: nn.Module = nn.Linear(12, 10)
    x = torch.randn(2, 9, 12)
    if site.conv is not None:
        module, x = nn.Conv1d(12, 8, 3, stride=2, padding=1), torch.randn(2, 12, 9)
    with torch.no_grad():
        adapter.up += torch.randn_like(adapter.up)
        y = module(x)
        added = adapter.leave(x, y, NOTHING)
        assert adapter.factors(module).rank == 6
        module.weight += adapter.delta(module).weight
        torch.testing.assert_close(added, module(x), rtol=1e-4, atol=1e-4)


def _apart_and_together(model: Path, rank: int) -> dict[str, object]:
    """Train with gradients averaged at every step, and alone with each exchange counted."""
    together = learned(model, "lte", CONFIG, 4, rank, parallel=True)
    sent = [0]
    gather = distributed.all_gather

    def counting(received: list[Tensor], own: Tensor) -> None:
        sent[0] += own.numel() * own.element_size()
        gather(received, own)

    distributed.all_gather = counting
    apart = learned(model, "lte", CONFIG, 4, rank)
    return {"together": together, "apart": apart, "sent": sent[0]}


def test_processes_learn_what_shares_of_a_batch_learn_and_send_heads_alone(
    tiny_folder, tmp_path: Path
) -> None:
    model = tiny_folder("whisper")
    alone = learned(model, "lte", CONFIG, 4, None)
    both = in_processes(partial(_apart_and_together, model), tmp_path)
    assert any(float(tensor.abs().max()) > 0.01 for key, tensor in alone.items() if ":up" in key)
    for found in (one[way] for one in both for way in ("apart", "together")):
        for key, tensor in alone.items():
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-5, msg=key)
    # two layers: q 32 to 32 and down 48 to 32, rank 3, 4 bytes, at two merges
    expected = 2 * 3 * (32 + 32 + 48 + 32) * 4 * 2
    assert [one["sent"] for one in both] == [expected, expected]


def test_what_a_worker_sends_is_counted_merge_by_merge() -> None:
    adapter, module = made()
    x, target = data(4)
    train(adapter, module, x, target, 5)
    assert head_bytes(adapter) == 3 * (12 + 10) * 4
    assert METHOD.figures([adapter]) == {
        "merges": 2.0,
        "bytes_sent_by_a_worker": 2.0 * 3 * (12 + 10) * 4,
    }


def test_a_saved_state_goes_on_where_it_stopped() -> None:
    adapter, module = made()
    x, target = data(4)
    train(adapter, module, x, target, 3)
    again = LteAdapter(LINEAR, CONFIG, None).train()
    again.load_state_dict(copy.deepcopy(adapter.state_dict()))
    y = module(x)
    assert torch.equal(again.leave(x, y, NOTHING), adapter.leave(x, y, NOTHING))


def test_a_rank_above_the_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.rank must be between 1 and 10 .* got 11"):
        LteAdapter(LINEAR, LteConfig(rank=11), None)
