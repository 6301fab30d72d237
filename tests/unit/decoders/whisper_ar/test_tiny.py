from __future__ import annotations

import torch

from speechadapt.decoders.whisper_ar.tiny import tiny_generation, tiny_network, tiny_tokenizer


def test_the_tokenizer_spells_any_text():
    tokenizer = tiny_tokenizer()
    for text in (" turn on", "größe", "你好"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_network_tokenizer_and_settings_fit():
    tokenizer, network = tiny_tokenizer(), tiny_network()
    assert network.config.vocab_size == tokenizer.get_vocab_size()
    settings = tiny_generation(tokenizer)
    assert tokenizer.id_to_token(settings.no_timestamps_token_id) == "<|notimestamps|>"
    assert tokenizer.id_to_token(settings.no_timestamps_token_id + 1) == "<|0.00|>"
    assert tokenizer.id_to_token(network.config.vocab_size - 1) == "<|2.00|>"


def test_the_seed_decides_the_weights_and_the_global_state_is_left_alone():
    state = torch.random.get_rng_state()
    first, second, other = tiny_network(seed=1), tiny_network(seed=1), tiny_network(seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first.proj_out.weight, second.proj_out.weight)
    assert not torch.equal(first.proj_out.weight, other.proj_out.weight)
