"""The head of a card: what hubs read, never against what the card itself says."""

from __future__ import annotations

import pytest
import yaml

from speechadapt.adapters.card_head import (
    CardHead,
    Figure,
    adapter_head,
    hub_licence,
    split_head,
    with_head,
)
from speechadapt.core.errors import CheckpointError

DETAILS = {
    "method": "lora",
    "base": {"name": "openai/whisper-small"},
    "head": {"kind": "ctc", "language": "fi"},
    "training": {"licence": "CC BY-SA 4.0"},
    "scores": {
        "mine": {"headline": "wer", "wer": 0.12345, "items": 20},
        "dev": {"wer": 0.5},
        "other": {"headline": "cer", "cer": 0.1},
    },
}


def test_an_adapters_head_says_what_its_training_noted() -> None:
    fields = adapter_head("finnish", DETAILS).fields()
    results = fields.pop("model-index")
    assert fields == {
        "library_name": "speechadapt",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["speech", "adapter", "lora"],
        "base_model": "openai/whisper-small",
        "language": ["fi"],
        "license": "cc-by-sa-4.0",
        "metrics": ["cer", "wer"],
    }
    (index,) = results
    assert index["name"] == "finnish"
    assert [one["dataset"]["name"] for one in index["results"]] == ["mine/dev", "other/dev"]
    assert index["results"][0]["metrics"] == [
        {"type": "wer", "name": "WER, per cent", "value": 12.35}
    ]


def test_the_library_of_the_hub_reads_the_scores() -> None:
    from huggingface_hub import ModelCard

    card = ModelCard(with_head("# finnish\n", adapter_head("finnish", DETAILS)))
    assert card.data.model_name == "finnish"
    assert [(one.metric_type, one.metric_value) for one in card.data.eval_results] == [
        ("wer", 12.35), ("cer", 10.0),
    ]  # fmt: skip
    assert card.text.strip() == "# finnish"


def test_what_says_nothing_is_left_out() -> None:
    bare = {"method": "", "base": {"name": None}, "head": None, "training": {}, "scores": {}}
    assert adapter_head("x", bare).fields() == {
        "library_name": "speechadapt", "tags": ["speech", "adapter", "head"],
    }  # fmt: skip
    assert adapter_head("x", {"composition": "fuse(a)"}).tags[-1] == "composition"


def test_decibels_stay_decibels_and_a_model_without_a_task_has_no_results() -> None:
    head = CardHead("x", "audio-to-audio", figures=(Figure("test", "lsd_db", 4.567),))
    metrics = head.fields()["model-index"][0]["results"][0]["metrics"]
    assert metrics == [{"type": "lsd_db", "name": "LSD_DB", "value": 4.567}]
    assert "metrics" not in head.fields()
    assert "model-index" not in CardHead("x", figures=head.figures).fields()


def test_the_cards_own_head_goes_first_and_the_command_line_before_it() -> None:
    head = CardHead("x", base="b", languages=("fi",), licence="MIT")
    own = "---\nlicense: other\nlicense_name: mine\nlanguage: sv\n---\n# x\n"
    fields, body = split_head(with_head(own, head))
    assert fields == {
        "library_name": "speechadapt", "base_model": "b", "language": "sv", "license": "other",
        "license_name": "mine",
    }  # fmt: skip
    assert body == "\n# x\n"
    fields, _ = split_head(with_head(own, head, licence="CC0 1.0", languages=("de", "en")))
    assert (fields["license"], fields["language"]) == ("cc0-1.0", ["de", "en"])
    assert "license_name" not in fields


def test_a_card_that_says_all_stays_byte_for_byte() -> None:
    whole = with_head("# x\n", CardHead("x", base="b"))
    assert with_head(whole, CardHead("x", base="other")) == whole


@pytest.mark.parametrize("own", ["---\na: [\n---\n", "---\n- a\n---\n", "---\nnever ends\n"])
def test_a_head_that_is_no_mapping_is_refused(own: str) -> None:
    with pytest.raises(CheckpointError, match=r"README\.md"):
        with_head(own, CardHead("x"))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CC BY-SA 4.0", "cc-by-sa-4.0"),
        ("CC BY 4.0", "cc-by-4.0"),
        ("cc-by-nc-nd-3.0", "cc-by-nc-nd-3.0"),
        ("Apache-2.0", "apache-2.0"),
        ("Apache License 2.0", "apache-2.0"),
        ("MIT", "mit"),
        ("BSD-3-Clause", "bsd-3-clause"),
        ("CC0 1.0", "cc0-1.0"),
        ("Mine, not yours", "other"),
        ("", ""),
    ],
)
def test_licences_are_named_as_hubs_name_them(text: str, name: str) -> None:
    assert hub_licence(text) == name
    if name == "other":
        dumped = yaml.safe_load(with_head("# x", CardHead("x", licence=text)).split("---")[1])
        assert dumped["license_name"] == text
