"""What `grid.py` compares on Arabic words: compact, conditional and spread adapters, streams.

Source: https://arxiv.org/abs/2307.16867 (bits at equal storage), https://arxiv.org/abs/2210.04284
    (SNIP, Large-Sparse), https://arxiv.org/abs/2312.02923 (experts), https://arxiv.org/abs/2304.04947
    (conditional), https://arxiv.org/abs/2505.18777 (principal blocks), https://arxiv.org/abs/2505.10475
    (streams)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grid_arms import Arm, Comparison
from grid_arms_tables import Claim

BITS = (8, 4, 2, 1)
RANK = 2  # of full precision; b bits have room for 32 / b times as much
STRENGTH = 2.0  # alpha / rank
WIDTH = 32
SHARES = (0.5, 0.25, 0.125)
WORKERS = 4
STREAMS = (2, 4)


def _lora(rank: int) -> dict[str, Any]:
    return {"rank": rank, "alpha": STRENGTH * rank}


def _beside(width: int) -> dict[str, Any]:
    return {"bottleneck": width, "input": "normed"}


def _compact() -> dict[str, Arm]:
    dense = _beside(WIDTH)
    sparse: Mapping[str, Arm] = {
        f"{score}-60": Arm("sparse", {"settings": dense, "density": 0.6, "score": score})
        for score in ("snip", "magnitude", "random")
    }
    mosa = {
        f"mosa-{merge}": Arm("mosa", {"settings": dense, "merge": merge})
        for merge in ("mean", "union")
    }
    bits = {
        f"lora-{bits}bit": Arm(
            "low_bit", {"host": "lora", "settings": _lora(RANK * 32 // bits), "bits": bits}
        )
        for bits in BITS
    }
    found = {
        "lora-32bit": Arm("lora", _lora(RANK)),
        "lora-1bit": bits.pop("lora-1bit"),
        "parallel": Arm("parallel", dense),
        "snip-60": sparse["snip-60"],
        "large-sparse": Arm("sparse", {"settings": dense, "density": 0.2, "large": True}),
        "mosa-mean": mosa["mosa-mean"],
        "parallel-32bit": Arm("parallel", _beside(RANK)),
        "parallel-1bit": Arm("low_bit", {"settings": _beside(RANK * 32)}),
    }
    return found | bits | dict(sparse) | mosa


def _routed(share: float) -> Arm:
    steps = {"schedule_steps": 100} if share < 1 else {}
    return Arm("coda", {"bottleneck": 23, "share": share, **steps}, ("attn", "ffn"))


COMPARISONS = {
    one.name: one
    for one in (
        Comparison(
            "compact",
            "Compact adapters: bits, sparsity, experts",
            _compact(),
            (
                Claim(
                    "1 bit against full precision at equal storage, LoRA", "lora-1bit", "lora-32bit"
                ),
                Claim("the same, bottlenecks", "parallel-1bit", "parallel-32bit"),
                Claim("SNIP at density 0.6 against the dense host", "snip-60", "parallel"),
                Claim("Large-Sparse against it, equal live entries", "large-sparse", "parallel"),
                Claim("MoSA (mean) against it, equal inference cost", "mosa-mean", "parallel"),
                Claim("MoSA (union) against the same", "mosa-union", "parallel"),
            ),
            ("parallel",),
        ),
        Comparison(
            "conditional",
            "Conditional adapters: error by the share of the frames that go through the encoder",
            {"all": _routed(1.0)} | {f"share-{round(100 * one)}": _routed(one) for one in SHARES},
            tuple(
                Claim(
                    f"{one:.1%} of the frames against all", f"share-{round(100 * one)}", "all", 0.02
                )
                for one in SHARES
            ),
            ("all",),
        ),
        Comparison(
            "spread",
            "Principal components spread over workers, at equal tensors for each",
            {
                "lora": Arm("lora", {"rank": RANK, "alpha": RANK}),
                "pissa": Arm("pissa", {"rank": RANK}),
                "hd-pissa": Arm("hd_pissa", {"rank": RANK, "workers": WORKERS}),
            },
            (
                Claim("HD-PiSSA against LoRA", "hd-pissa", "lora"),
                Claim("HD-PiSSA against PiSSA", "hd-pissa", "pissa"),
            ),
            ("lora",),
        ),
        Comparison(
            "streams",
            "Parallel streams through the frozen encoder",
            {"head": Arm()}
            | {
                f"streams-{one}": Arm("parallel_streams", {"streams": one, "prefix": 20})
                for one in STREAMS
            }
            | {"parallel": Arm("parallel", _beside(WIDTH))},
            tuple(
                Claim(f"{one} streams against one, the head alone", f"streams-{one}", "head", 0.0)
                for one in STREAMS
            ),
            ("head",),
        ),
    )
}
