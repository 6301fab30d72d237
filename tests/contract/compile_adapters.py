"""Compile one family's tiny encoder with each method attached, and print how far it is off.

    python -m tests.contract.compile_adapters FAMILY FOLDER

Prints, by method, the largest difference to the encoder as it is for all rows and for rows with
adapters of their own, and the largest change that the adapter makes, as one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from speechadapt.adapters.attach import active
from speechadapt.adapters.catalog import method_names
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.tiny import write_tiny
from tests.contract.adapter_checks import Case

ROWS = ["german", None, "german"]


def main(family: str, folder: Path) -> None:
    """Compile every method on one family."""
    model = write_tiny(family, folder / family)
    generator = torch.Generator().manual_seed(0)
    clips = [0.1 * torch.randn(count, generator=generator) for count in (16000, 9001, 5431)]
    found = {}
    for name in method_names():
        torch.compiler.reset()
        encoder = load_encoder(model, padding="native")
        case = Case(name, encoder, encoder, encoder, clips, folder)
        compiled = torch.compile(encoder, backend="inductor" if name == "lora" else "aot_eager")
        with torch.no_grad():
            case.run(compiled)  # before anything is attached, as a careless user might
        with case.attached(moved=True):
            off, on, mixed = case.output(None), case.output(), case.output(ROWS)
            with torch.no_grad():
                errors = [float((case.run(compiled) - on).abs().max())]
                with active(encoder, ROWS, case.conditions):  # type: ignore[arg-type]
                    errors.append(float((case.run(compiled) - mixed).abs().max()))
        found[name] = max(errors), float((on - off).abs().max())
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
