"""From module paths in other tools' files to roles, and back.

A path is matched by its end, because it starts with whatever the tool and the task model wrapped
around the encoder (`base_model.model.model.encoder.layers.0...`). The names of transformers 4.57
are known beside today's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from speechadapt.core.errors import CheckpointError, SiteError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import family_module

_OTHER_TOWERS = re.compile(r"decoder|language_model|text_model|text_encoder")
_IN_LAYER = re.compile(r"\.\d+(\.|$)")


@dataclass(frozen=True)
class Located:
    """Where the paths of a file point.

    Args:
        roles: Role by path, for the paths that are sites of the encoder.
        outside: Paths of other modules.
    """

    roles: dict[str, str]
    outside: tuple[str, ...]


class Names:
    """The names of one encoder's modules, of this and of an earlier transformers.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        layers = sorted({int(role.split(".")[1]) for role in encoder.sites if "layer." in role})
        self.paths = {
            path.replace("<i>", str(index)): role.replace("<i>", str(index))
            for path, role in family_module(encoder.family).legacy_names().items()
            for index in layers
        }
        own: dict[str, str] = {}
        for role, site in encoder.sites.items():
            if role.endswith(".end"):
                own[site.read] = role
            elif site.read == site.write:
                own[site.write] = role
        if "encoder" in encoder.sites:
            own.setdefault(encoder.sites["encoder"].write, "encoder")
        self.paths |= own

    def locate(self, paths: Iterable[str], where: str) -> Located:
        """Find the sites that module paths name, whatever wraps the encoder.

        Args:
            paths: Module paths inside any model that holds the encoder.
            where: The file they stand in, for the message.

        Raises:
            CheckpointError: They lead into several models of the same build, or none leads to a
                site of this encoder.
            SiteError: One leads to a module of the encoder that is no site.
        """
        asked = list(dict.fromkeys(paths))
        prefix = self._prefix(asked, where)
        roles: dict[str, str] = {}
        outside: list[str] = []
        for path in asked:
            inner = path.removeprefix(prefix) if path.startswith(prefix) else None
            if inner in self.paths:
                roles[path] = self.paths[inner]
            elif inner is not None and self._is_module(inner):
                raise SiteError(
                    f"'{where}' adapts '{inner}' of {self.encoder.family}, where no adapter can "
                    "stand. Only the encoder's sites can be adapted; see speechadapt/encoders."
                )
            else:
                outside.append(path)
        return Located(roles, tuple(outside))

    def _prefix(self, paths: list[str], where: str) -> str:
        ends = [self._ends(path) for path in paths]
        found = [one for several in ends for one in several if not _OTHER_TOWERS.search(one[0])]
        deep = {prefix for prefix, inner in found if _IN_LAYER.search(inner)}
        prefixes = sorted(deep or {prefix for prefix, _ in found})
        if len(prefixes) == 1:
            return prefixes[0]
        if not prefixes:
            raise CheckpointError(
                f"'{where}' was to be attached to {self.encoder.family}, but none of its "
                f"{len(paths)} modules, such as '{paths[0] if paths else ''}', is one of this "
                "encoder's. Give the base it was trained on."
            )
        raise CheckpointError(
            f"'{where}' adapts {len(prefixes)} models of the same build, under "
            f"{', '.join(repr(prefix) for prefix in prefixes)}. Split it, so that one encoder's "
            "adapter remains."
        )

    def _ends(self, path: str) -> list[tuple[str, str]]:
        parts = path.split(".")
        cuts = [
            (".".join(parts[:at]) + "." * (at > 0), ".".join(parts[at:]))
            for at in range(len(parts))
        ]
        return [(prefix, inner) for prefix, inner in cuts if inner in self.paths]

    def _is_module(self, path: str) -> bool:
        try:
            self.encoder.model.get_submodule(path)
        except AttributeError:
            return False
        return True


def role_patterns(encoder: Encoder, roles: Iterable[str]) -> tuple[str, ...]:
    """Return the shortest patterns that select exactly these roles.

    Args:
        encoder: Whose roles.
        roles: Full roles. A kind of site that every layer has here is written without its layer.
    """
    wanted = set(roles)
    patterns: list[str] = []
    for role in encoder.sites:
        if role not in wanted:
            continue
        kind = re.sub(r"^layer\.\d+\.", "", role)
        alike = {other for other in encoder.sites if re.fullmatch(rf"layer\.\d+\.{kind}", other)}
        pattern = kind if role in alike and alike <= wanted else role
        selected = {site.role for site in encoder.select([pattern])}
        pattern = pattern if selected <= wanted else role
        if pattern not in patterns:
            patterns.append(pattern)
    return tuple(patterns)
