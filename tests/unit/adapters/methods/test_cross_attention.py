from __future__ import annotations

import math

import pytest
import torch

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.cross_attention import (
    METHOD,
    CrossAttentionAdapter,
    CrossAttentionConfig,
    Tokens,
)
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError
from speechadapt.encoders.sites import Site

SITE = Site("layer.0.attn", "a", "b", 12, 12, tap="n")
WORDS = [["alexa", "view glass"], [], None, ["صفر"]]


def adapter_of(**options: object) -> CrossAttentionAdapter:
    torch.manual_seed(0)
    config = CrossAttentionConfig(token_width=10, width=8, heads=2, **options)
    adapter = CrossAttentionAdapter(SITE, config, Tokens([SITE], config))
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor.copy_(torch.randn(tensor.shape))
    return adapter.eval()


def memories(*sizes: int, width: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, width, generator=generator) for size in sizes]


def test_the_formula():
    """Attention to the tokens and to nothing, head by head, written out."""
    adapter = adapter_of(strength=0.5)
    x, y, rows = torch.randn(2, 7, 12), torch.randn(2, 7, 12), memories(5, 3)
    found = adapter.leave(x, y, Context(None, {"memory": rows}))
    read = adapter.tokens.read
    for row in range(2):
        tokens = read.norm(rows[row] @ read.map.weight.T + read.map.bias)
        keys = torch.cat([adapter.nothing[None], tokens @ adapter.key.weight.T])
        values = torch.cat([torch.zeros(1, 8), tokens @ adapter.value.weight.T])
        query = x[row] @ adapter.query.weight.T
        parts = []
        for head in (slice(0, 4), slice(4, 8)):
            scores = query[:, head] @ keys[:, head].T / math.sqrt(4)
            parts.append(scores.softmax(-1) @ values[:, head])
        wanted = y[row] + 0.5 * torch.cat(parts, -1) @ adapter.out.weight.T
        torch.testing.assert_close(found[row], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["frames", "words"])
def test_the_count_is_the_closed_form(kind):
    config = CrossAttentionConfig(memory=kind)
    shared = Tokens([SITE], config)
    adapter = CrossAttentionAdapter(SITE, config, shared)
    own = sum(one.numel() for key, one in adapter.named_parameters() if key[:6] != "tokens")
    assert own == METHOD.parameters(SITE, config)
    assert sum(one.numel() for one in shared.parameters()) == METHOD.shared_parameters(
        [SITE], config
    )


def test_rows_without_a_memory_or_at_strength_zero_are_the_base():
    adapter = adapter_of()
    x, y = torch.randn(3, 7, 12), torch.randn(3, 7, 12)
    one, two, _ = memories(5, 3, 4)
    conditions = {"memory": [one, None, two], "strength": [0.0, 1.0, 2.0]}
    found = adapter.leave(x, y, Context(None, conditions))
    assert torch.equal(found[:2], y[:2])
    plain = adapter.leave(x, y, Context(None, {"memory": [one, None, two]}))
    torch.testing.assert_close(found[2] - y[2], 2 * (plain[2] - y[2]), rtol=1e-4, atol=1e-4)


def test_a_memory_of_words_tells_words_and_their_letters_order_apart():
    adapter = adapter_of(memory="words")
    x, y = torch.randn(4, 7, 12), torch.randn(4, 7, 12)
    found = adapter.leave(x, y, Context(None, {"memory": WORDS}))
    assert torch.equal(found[1:3], y[1:3])
    assert not torch.allclose(found[0], y[0])
    assert not torch.allclose(found[3], y[3])
    other = adapter.leave(x, y, Context(None, {"memory": [["alaxe", "view glass"], *WORDS[1:]]}))
    assert not torch.allclose(other[0], found[0], atol=1e-3)
    turned = adapter.leave(x, y, Context(None, {"memory": [["view glass", "alexa"], *WORDS[1:]]}))
    torch.testing.assert_close(turned[0], found[0], rtol=1e-4, atol=1e-4)


def test_padding_of_a_short_memory_takes_no_part():
    adapter = adapter_of()
    x, y, rows = torch.randn(2, 7, 12), torch.randn(2, 7, 12), memories(9, 2)
    both = adapter.leave(x, y, Context(None, {"memory": rows}))
    alone = adapter.leave(x[1:], y[1:], Context(None, {"memory": rows[1:]}))
    torch.testing.assert_close(both[1:], alone, rtol=1e-5, atol=1e-5)


def test_keys_and_values_are_kept_until_a_memory_or_a_weight_changes():
    adapter, rows = adapter_of(), memories(5, 3)
    x, y, calls = torch.randn(2, 7, 12), torch.randn(2, 7, 12), []
    adapter.key.register_forward_hook(lambda *args: calls.append(1))

    def run(memory: list[torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return adapter.leave(x, y, Context(None, {"memory": memory}))

    first = run(rows)
    assert torch.equal(run(list(rows)), first)
    assert len(calls) == 1
    assert not torch.equal(run([one.clone() + 1 for one in rows]), first)
    assert len(calls) == 2
    assert torch.equal(run(rows), first)
    rows[0] += 1
    assert not torch.equal(run(rows), first)
    assert len(calls) == 4
    with torch.no_grad():
        adapter.tokens.read.map.weight += 1
    run(rows)
    assert len(calls) == 5
    adapter.leave(x, y, Context(None, {"memory": rows})).sum().backward()
    assert len(calls) == 6
    assert adapter.key.weight.grad is not None


def test_one_memory_of_many_rows_is_read_once():
    adapter, (row,) = adapter_of(), memories(5)
    calls = []
    adapter.tokens.read.map.register_forward_hook(lambda *args: calls.append(1))
    adapter.tokens([row, row, row])
    assert len(calls) == 1


def test_memories_that_do_not_fit_are_refused(load, clips):
    encoder = load()
    attach(encoder, "cross_attention")
    with active(encoder, "cross_attention", {"memory": memories(2, 2)}):
        with pytest.raises(ConfigError, match=r"has 2 entries for 3 rows"):
            encoder.encode(clips)
    with active(encoder, "cross_attention", {"memory": memories(2, 2, 2)}):
        with pytest.raises(
            ConfigError, match=r"must be \[tokens, 32\] for each row, got \[2, 12\]"
        ):
            encoder.encode(clips)
    with pytest.raises(ConfigError, match="needs the condition 'memory'"):
        encoder.encode(clips)
    words = adapter_of(memory="words")
    with pytest.raises(ConfigError, match="must be a list of words for each row, got str"):
        words.tokens(["alexa"])
    with pytest.raises(ConfigError, match=r"width=9 must be a multiple of adapter.heads=2"):
        CrossAttentionAdapter(SITE, CrossAttentionConfig(width=9, heads=2), None)
