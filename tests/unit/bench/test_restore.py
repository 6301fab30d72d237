"""Measuring restorers: shapes of every size, and what a report says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import Wav2Vec2BertConfig
from typer.testing import CliRunner

from speechadapt.bench.restore import SIZES, lines, measure_restorer, random_restorer
from speechadapt.bench.restore_options import RestoreBench
from speechadapt.cli import bench
from speechadapt.restoration.vocoder import Speech
from speechadapt.restoration.vocoder_folder import make_vocoder

SMALL = RestoreBench(size="tiny", seconds=0.5, rounds=1)


@pytest.mark.parametrize("vocoder", ["istft", "wavefit"])
def test_a_report_has_times_parameters_and_memory(vocoder: str) -> None:
    report = measure_restorer(replace(SMALL, vocoder=vocoder))
    assert set(report["seconds"]) == {"end to end", "encoder and cleaner", "vocoder"}
    assert report["rtf"]["end to end"] == pytest.approx(
        report["seconds"]["end to end"] / 0.5, rel=0.05, abs=1e-3
    )
    assert min(report["parameters"].values()) > 0
    assert report["memory_mb"] > 10
    assert "| vocoder |" in lines(report)


def test_full_size_is_w2v_bert_with_the_papers_vocoder() -> None:
    size, config = SIZES["full"], Wav2Vec2BertConfig()
    assert (size.dim, size.feed_forward) == (config.hidden_size, config.intermediate_size)
    assert (size.heads, size.kernel) == (
        config.num_attention_heads,
        config.conv_depthwise_kernel_size,
    )
    assert size.positions == config.position_embeddings_type
    assert size.stride * 80 == config.feature_projection_input_dim
    vocoder = make_vocoder(Speech(size.dim, 50.0, size.sample_rate), size.wavefit)
    assert 12e6 < sum(one.numel() for one in vocoder.net.parameters()) < 18e6
    assert vocoder.speech.hop == 480


def test_mini_size_is_that_of_the_bundled_encoder_and_the_recipe() -> None:
    restorer = random_restorer(SIZES["mini"], "istft")
    assert sum(one.numel() for one in restorer.cleaner.encoder.parameters()) == 1413280
    assert restorer.cleaner.handle.num_parameters() == 198272
    assert sum(one.numel() for one in restorer.vocoder.parameters()) == 2892674


def test_the_table_is_printed_and_the_figures_written(tmp_path: Path) -> None:
    words = ["restore", "--size", "tiny", "--seconds", "0.5", "--rounds", "1"]
    result = CliRunner().invoke(bench.app, [*words, "-o", str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    assert "| end to end |" in result.output
    assert json.loads((tmp_path / "found.json").read_text())["audio_s"] == 0.5
