from __future__ import annotations

import math

import pytest
import torch

from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.methods.coda import METHOD, CodaAdapter, CodaConfig, set_share
from speechadapt.adapters.soft_topk import soft_topk
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError, SiteError
from speechadapt.encoders.sites import Part, Site

SITE = Site("layer.0.ffn", "a", "b", 12, 12, tap="n", part=Part())


def adapter_of(**options: object) -> CodaAdapter:
    torch.manual_seed(0)
    return CodaAdapter(SITE, CodaConfig(**options), None)


def test_the_formula():
    """Bottleneck for all, the weighted sub-layer for the best: written out."""
    adapter = adapter_of(share=0.4, bottleneck=5, scale=2.0, initial="normal", input="own_ln")
    x, u = torch.randn(2, 9, 12), torch.randn(2, 9, 12)
    scores = x @ adapter.router
    passage = adapter.around(x, Context())
    k = math.ceil(0.4 * 9)
    for row in range(2):
        best = scores[row].topk(k).indices.tolist()
        assert passage.frames[row].tolist() == best[::-1]
    weights = soft_topk(scores, torch.full((2,), 1.125 * k))
    torch.testing.assert_close(passage.weights, weights.gather(1, passage.frames))
    y = passage.put_back(passage.gather(x).tanh(), 9)
    inner = adapter.bottleneck
    bent = (inner.norm(u) @ inner.down.weight.T + inner.down.bias).relu()
    wanted = 2.0 * (bent @ inner.up.weight.T + inner.up.bias)
    for row in range(2):
        for frame in passage.frames[row].tolist():
            wanted[row, frame] += weights[row, frame] * x[row, frame].tanh()
    torch.testing.assert_close(adapter.leave(u, y, Context()), wanted, rtol=1e-4, atol=1e-5)
    assert adapter.taps
    count = sum(one.numel() for one in adapter.parameters())
    assert count == METHOD.parameters(SITE, adapter.config)


def test_a_row_sends_its_share_of_its_own_valid_frames():
    adapter, x = adapter_of(share=0.3), torch.randn(3, 20, 12)
    mask = torch.arange(20) < torch.tensor([20, 10, 1])[:, None]
    passage = adapter.around(x, Context(mask))
    assert passage.used.sum(1).tolist() == [6, 3, 1]
    for row in range(3):
        used = passage.frames[row][passage.used[row]]
        assert bool(mask[row, used].all())
        length = int(mask[row].sum())
        alone = adapter.around(x[row : row + 1, :length], Context())
        assert alone.frames[0].tolist() == used.tolist()


@pytest.mark.parametrize("role", ["ffn", "attn"])
@pytest.mark.parametrize("family", ["whisper", "ast", "w2v_bert"])
def test_frozen_layers_compute_the_chosen_frames_alone(load, rotary, clips, family, role):
    encoder = rotary() if family == "w2v_bert" else load(family)
    handle = attach(encoder, "coda", roles=[f"layer.0.{role}"], config={"share": 0.25})
    site = handle.sites[0]
    sizes = []
    module = encoder.model.get_submodule(site.read)
    inner = module.q_proj if role == "attn" and family != "w2v_bert" else module
    inner = module.linear_q if role == "attn" and family == "w2v_bert" else inner
    inner.register_forward_hook(lambda m, args, y: sizes.append(args[0].shape[1]))
    with torch.no_grad():
        encoder.encode(clips)
        set_share(handle.module.adapters(), 1.0)
        encoder.encode(clips)
    assert sizes[0] == math.ceil(0.25 * sizes[1])


@pytest.mark.parametrize("keys", ["chosen", "all"])
@pytest.mark.parametrize("family", ["whisper", "ast", "w2v_bert"])
def test_routed_attention_is_a_masked_full_pass(load, rotary, clips, family, keys):
    """Mask and positions are cut right: the same from all frames, with the rest masked as keys."""
    encoder = rotary() if family == "w2v_bert" else load(family)
    if keys == "all" and family != "whisper":
        with pytest.raises(SiteError, match="takes its keys from the frames that ask"):
            attach(encoder, "coda", roles=["attn"], config={"keys": keys})
        return
    handle = attach(encoder, "coda", roles=["layer.0.attn"], config={"share": 0.3, "keys": keys})
    site, adapter = handle.sites[0], handle.module.adapters()[0]
    module, caught = encoder.model.get_submodule(site.read), {}

    def before(module, args, kwargs):
        caught["full"] = args, dict(kwargs)

    def after(module, args, y):
        caught["routed"] = y

    removed = module.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    hook = encoder.model.get_submodule(site.write).register_forward_hook(after)
    with torch.no_grad():
        encoder.encode(clips)
        removed.remove()
        hook.remove()
        args, kwargs = caught["full"]
        x = args[0] if args else kwargs["hidden_states"]
        features, lengths = encoder.extract(clips)
        valid = encoder.residual_mask(features, lengths)
        passage = adapter.around(x, Context(valid))
        used = torch.ones_like(passage.frames) if passage.used is None else passage.used.long()
        chosen = torch.zeros(x.shape[:2]).scatter_add(1, passage.frames, used.float()) > 0
        weights = torch.zeros(x.shape[:2]).scatter_add(1, passage.frames, passage.weights * used)
        seen = chosen if keys == "chosen" else (torch.ones_like(chosen) if valid is None else valid)
        mask = torch.zeros(len(x), 1, 1, x.shape[1])
        mask = mask.masked_fill(~seen[:, None, None], torch.finfo(mask.dtype).min)
        if args:
            args = (x, mask)
        else:
            kwargs["attention_mask"] = mask
        with active(encoder, None):
            wanted = module(*args, **kwargs)[0] * weights[:, :, None]
    torch.testing.assert_close(caught["routed"], wanted, rtol=1e-4, atol=1e-5)


def test_the_share_falls_from_the_base_to_its_end(load, clips):
    encoder = load()
    with torch.no_grad():
        base, _ = encoder.encode(clips)
    handle = attach(encoder, "coda", config={"share": 0.2, "schedule_steps": 10})
    with torch.no_grad():
        assert torch.equal(encoder.encode(clips)[0], base)
    assert handle.method.starts_as_identity
    assert not METHOD.starts_as_identity
    shares = []
    for step in (5, 10, 25):
        handle.after_step(step)
        shares.append(handle.module.adapters()[0].current_share())
    assert shares == pytest.approx([0.6, 0.2, 0.2])
    assert int(handle.module.tensors()["layer.1.ffn:steps"]) == 25
    with torch.no_grad():
        assert not torch.allclose(encoder.encode(clips)[0], base, atol=1e-3)


def test_a_share_out_of_range_is_refused(load):
    handle = attach(load(), "coda")
    with pytest.raises(ConfigError, match=r"above 0 and at most 1, got 1.5"):
        set_share(handle.module.adapters(), 1.5)
    with pytest.raises(ConfigError, match="share must be above 0 and at most 1, got 0"):
        attach(load(), "coda", config={"share": 0.0})


def test_two_of_them_at_one_site_are_refused(load, clips):
    encoder = load()
    for name in ("one", "two"):
        attach(encoder, "coda", name=name, config={"share": 0.5})
    with active(encoder, ("one", "two")), pytest.raises(ConfigError, match="are both to choose"):
        encoder.encode(clips)
    with active(encoder, ["one", "two", None]), torch.no_grad():
        encoder.encode(clips)


def test_adapters_inside_a_routed_attention_act_on_the_chosen_frames(load, clips):
    encoder = load()
    attach(encoder, "coda", name="routed", roles=["attn"], config={"share": 0.5})
    inner = attach(encoder, "lora", name="low", roles=["attn.q"])
    with torch.no_grad(), active(encoder, ("routed", "low")):
        before, _ = encoder.encode(clips)
        for tensor in inner.parameters():
            tensor += 0.1
        after, _ = encoder.encode(clips)
    assert not torch.allclose(before, after, atol=1e-4)
