from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import active, attach, remove
from speechadapt.adapters.hooks import Checkpoint


def hooked(encoder) -> dict[str, tuple[int, int]]:
    return {
        path: (len(one._forward_pre_hooks), len(one._forward_hooks))
        for path, one in encoder.model.named_modules()
        if one._forward_pre_hooks or one._forward_hooks
    }


def test_a_low_rank_change_hooks_its_module_alone(load):
    encoder = load()
    attach(encoder, "lora", roles=["layer.0.attn.q"])
    assert hooked(encoder) == {"layers.0.self_attn.q_proj": (0, 1)}


def test_a_span_hooks_its_ends_and_its_tap(load):
    encoder = load()
    attach(encoder, "parallel", roles=["layer.1.ffn"])
    assert hooked(encoder) == {
        "layers.1.fc1": (1, 0),
        "layers.1.fc2": (0, 1),
        "layers.1.final_layer_norm": (1, 0),
    }


def test_several_attachments_share_their_hooks(load):
    encoder = load()
    for name in ("first", "second"):
        attach(encoder, "lora", name=name, roles=["layer.0.attn.q"])
    assert hooked(encoder) == {"layers.0.self_attn.q_proj": (0, 1)}
    remove(encoder, "first")
    assert hooked(encoder) == {"layers.0.self_attn.q_proj": (0, 1)}
    remove(encoder, "second")
    assert hooked(encoder) == {}


@pytest.mark.parametrize("family", ["whisper", "w2v_bert", "ast"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_get_their_own_function_back(load, clips, family, reentrant):
    encoder = load(family)
    handle = attach(encoder, "lora")
    encoder.model.train()
    encoder.model.activation_checkpointing_enable({"use_reentrant": reentrant})
    layers = [one for one in encoder.model.modules() if hasattr(one, "gradient_checkpointing")]
    own = [one._gradient_checkpointing_func for one in layers]
    encoder.encode(clips)[0].square().mean().backward()
    watched = [one for one in layers if isinstance(one._gradient_checkpointing_func, Checkpoint)]
    assert len(watched) >= 2
    assert all(one.grad is not None for one in handle.parameters())
    remove(encoder, "lora")
    assert [one._gradient_checkpointing_func for one in layers] == own


def test_what_a_failed_call_had_read_is_forgotten(load, clips, move):
    encoder = load()
    move(attach(encoder, "parallel"))
    with torch.no_grad():
        on = encoder.encode(clips)[0]
        broken = encoder.model.layers[0].fc2.register_forward_pre_hook(
            lambda module, args: (args[0][..., :1],)
        )
        with pytest.raises(RuntimeError):
            encoder.encode(clips)
        broken.remove()
        assert torch.equal(encoder.encode(clips)[0], on)


def test_a_module_called_by_itself_has_its_adapters_too(load, clips, move):
    """Whoever calls the transformers model instead of the encoder gets the selection as well."""
    encoder = load("w2v_bert")
    move(attach(encoder, "lora"))
    features, lengths = encoder.extract(clips[:1])
    with torch.no_grad():
        on = encoder(features, lengths)[0]
        direct = encoder.model(input_features=features).last_hidden_state
        torch.testing.assert_close(direct, on, rtol=0, atol=1e-5)
        with active(encoder, None):
            assert not torch.allclose(
                encoder.model(input_features=features).last_hidden_state, direct, atol=1e-4
            )
