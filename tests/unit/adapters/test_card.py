from __future__ import annotations

from speechadapt.adapters.attach import attach
from speechadapt.adapters.card import card, composition_card
from speechadapt.adapters.store import describe


def test_a_card_says_what_the_adapter_belongs_to(load):
    handle = attach(load(), "lora", name="german", roles=["attn.q"], train_norms="adapted")
    details = describe(handle)
    text = card("german", details)
    assert text.startswith("---\nlibrary_name: speechadapt\n")
    assert "base_model: whisper\n" in text
    assert "- lora\n" in text
    for part in ("# german", "`lora`", "`attn.q`", details["base"]["fingerprint"], "adapted"):
        assert part in text
    assert text.count("Not stated.") == 2  # training and scores


def test_training_and_scores_are_listed(load):
    details = describe(attach(load(), "lora"))
    details |= {"training": {"corpus": "mine", "hours": 1.5}, "scores": {"cer": [0.1, 0.2]}}
    text = card("x", details)
    assert "- corpus: mine\n- hours: 1.5" in text
    assert "- cer: [0.1, 0.2]" in text


def test_a_base_from_memory_is_said_to_be(load):
    encoder = load()
    encoder.source = None
    text = card("x", describe(attach(encoder, "lora")))
    assert "a model built in memory, revision unknown" in text
    assert "base_model" not in text


def test_a_compositions_card_names_its_parts():
    details = {
        "composition": "mean(a, b)",
        "parts": {"a": {"method": "lora", "bundled": True}, "b": {"method": "ia3"}},
        "parameters": 1200,
        "base": {"name": "whisper", "family": "whisper", "fingerprint": "f" * 64},
        "training": {"hours": 2},
    }
    text = composition_card("both", details)
    for part in ("- composition\n", "# both", "`mean(a, b)`, with 1,200 parameters", "- hours: 2"):
        assert part in text
    assert "| a | lora | yes |\n| b | ia3 | no |" in text
