"""The model card of a saved adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def card(name: str, details: Mapping[str, Any]) -> str:
    """Return the text of an adapter's `README.md`.

    Args:
        name: The adapter's name.
        details: The content of its `adapter_config.json`.
    """
    base = details["base"]
    model = base["name"] or "a model built in memory"
    front = ["---", "library_name: speechadapt", "tags:", "- speech", "- adapter"]
    if base["name"]:
        front.append(f"base_model: {json.dumps(base['name'])}")
    lines = [
        *front,
        "---",
        "",
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
    return "\n".join(lines)


def _entries(values: Mapping[str, Any]) -> list[str]:
    if not values:
        return ["Not stated."]
    return [
        f"- {key}: {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in values.items()
    ]
