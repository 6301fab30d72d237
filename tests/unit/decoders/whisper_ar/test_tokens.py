from __future__ import annotations

import pytest
from transformers import GenerationConfig

from speechadapt.core.errors import CheckpointError, ConfigError
from speechadapt.decoders.whisper_ar.tiny import tiny_generation, tiny_tokenizer
from speechadapt.decoders.whisper_ar.tokens import read_vocabulary, special_tokens

TOKENIZER = tiny_tokenizer()


def ids(*tokens: str) -> list[int]:
    return [TOKENIZER.token_to_id(f"<|{token}|>") for token in tokens]


def vocabulary(**changes):
    settings = tiny_generation(TOKENIZER)
    for name, value in changes.items():
        setattr(settings, name, value)
    return read_vocabulary(settings, TOKENIZER)


def test_the_prompt_names_language_task_and_timestamps():
    found = vocabulary()
    full = ids("startoftranscript", "de", "transcribe", "notimestamps")
    assert found.prompt("de", "transcribe", True) == full
    assert found.prompt("de", "translate", False) == ids("startoftranscript", "de", "translate")


def test_a_model_of_one_language_is_prompted_without_language_and_task():
    found = vocabulary(is_multilingual=False)
    assert found.prompt("en", "transcribe", True) == ids("startoftranscript", "notimestamps")


def test_special_tokens_and_timestamps_are_not_spelled():
    found = vocabulary()
    text = TOKENIZER.encode(" hi", add_special_tokens=False).ids
    tokens = [*ids("startoftranscript", "en", "0.00"), *text, *ids("1.98", "endoftext")]
    assert found.text(tokens) == " hi"
    assert found.text_tokens(tokens) == text


def test_the_models_own_language_is_the_default():
    assert vocabulary(language="de").default_language == "de"
    assert vocabulary(language="<|zh|>").default_language == "zh"
    assert vocabulary(language="xx").default_language is None


def test_special_tokens_stand_in_whispers_order():
    tokens = special_tokens(["en"], 0.04)
    assert tokens == [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|translate|>",
        "<|transcribe|>",
        "<|startoflm|>",
        "<|startofprev|>",
        "<|nospeech|>",
        "<|notimestamps|>",
        "<|0.00|>",
        "<|0.02|>",
        "<|0.04|>",
    ]


def test_languages_and_tasks_the_model_lacks_are_refused():
    found = vocabulary()
    with pytest.raises(ConfigError, match=r"does not know the language 'dee'\. Did you mean de"):
        found.check("dee", "transcribe")
    single = vocabulary(is_multilingual=False)
    with pytest.raises(ConfigError, match="language 'de' was asked of a model that has one"):
        single.check("de", "transcribe")
    with pytest.raises(ConfigError, match="a model that only transcribes"):
        single.check("en", "translate")


def test_settings_without_start_token_are_refused():
    with pytest.raises(CheckpointError, match="must name decoder_start_token_id"):
        read_vocabulary(GenerationConfig(eos_token_id=1), TOKENIZER)
