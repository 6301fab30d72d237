"""The model card of a saved adapter, and of a composition of adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from speechadapt.adapters.card_head import adapter_head, with_head


def card(name: str, details: Mapping[str, Any]) -> str:
    """Return the text of an adapter's `README.md`.

    Args:
        name: The adapter's name.
        details: The content of its `adapter_config.json`.
    """
    base = details["base"]
    model = base["name"] or "a model built in memory"
    lines = [
        f"# {name}",
        "",
        f"An adapter of the method `{details['method']}` for the frozen encoder of {model} "
        f"({base['family']}): {details['parameters']:,} trainable parameters at "
        f"{len(details['sites'])} sites. The encoder's own weights are not in this folder and are "
        "not changed by it.",
        "",
        "| | |",
        "|---|---|",
        f"| base | {model}, revision {base['revision'] or 'unknown'} |",
        f"| weights | `{base['fingerprint']}` |",
        f"| roles | {', '.join(f'`{role}`' for role in details['roles'])} |",
        f"| trained norms | {details['train_norms']} |",
        f"| settings | `{json.dumps(details['config'])}` |",
        f"| method | {details['source']} |",
        f"| made with | {', '.join(f'{k} {v}' for k, v in details['versions'].items())} |",
        "",
    ]
    for title, key in (("Training", "training"), ("Scores", "scores")):
        lines += [f"## {title}", "", *_entries(details.get(key) or {}), ""]
    return with_head("\n".join(lines), adapter_head(name, details))


def composition_card(name: str, details: Mapping[str, Any]) -> str:
    """Return the text of a saved composition's `README.md`.

    Args:
        name: The composition's name.
        details: The content of its `composition.json`.
    """
    base = details["base"]
    parts = details["parts"]
    model = base["name"] or "a model built in memory"
    lines = [
        f"# {name}",
        "",
        f"A composition of adapters for the frozen encoder of {model} ({base['family']}): "
        f"`{details['composition']}`, with {details['parameters']:,} parameters of its own.",
        "",
        "| part | method | in this folder |",
        "|---|---|---|",
        *(
            f"| {part} | {row['method']} | {'yes' if row.get('bundled') else 'no'} |"
            for part, row in parts.items()
        ),
        "",
        f"Weights of the base: `{base['fingerprint']}`.",
        "",
    ]
    for title, key in (("Training", "training"), ("Scores", "scores")):
        lines += [f"## {title}", "", *_entries(details.get(key) or {}), ""]
    return with_head("\n".join(lines), adapter_head(name, details))


def _entries(values: Mapping[str, Any]) -> list[str]:
    if not values:
        return ["Not stated."]
    return [
        f"- {key}: {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    ]
