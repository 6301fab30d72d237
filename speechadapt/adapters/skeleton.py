"""The file that a new adapter method starts from: a small bottleneck that passes the contract.

What is written works as it stands, so that whoever edits it always sees what broke.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from speechadapt.adapters.catalog import GROUP, method_names
from speechadapt.core.errors import ConfigError
from speechadapt.core.files import atomic_write_text

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

_METHOD = '''"""$title: a bottleneck after a sub-layer, to begin with.

    y' = y + up(relu(down(y)))

`up` starts at zero, so nothing changes at first; `down` does not, so that both get gradients.

Source: https://arxiv.org/abs/1902.00751 section 2.1
Differs: this is a starting point, not a method of its own yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from speechadapt.adapters.blocks import check_frames, check_width
from speechadapt.adapters.spec import Adapter, Context, Method
from speechadapt.core.limits import Count
from speechadapt.encoders.sites import Site


@dataclass(frozen=True)
class ${kind}Config:
    """Settings of $name.

    Args:
        bottleneck: Width between the projections, at most the site's.
    """

    bottleneck: Count = 64


class ${kind}Adapter(Adapter):
    """The trained part at one site.

    Args:
        site: A sub-layer or a linear map.
        config: Its settings.
        shared: Nothing.

    Raises:
        ConfigError: The bottleneck is wider than the site.
        SiteError: The site is a convolution.
    """

    def __init__(
        self,
        site: Site,
        config: ${kind}Config,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__()
        check_frames(site, "$name")
        check_width("bottleneck", config.bottleneck, site.dim_out)
        self.down = nn.Linear(site.dim_out, config.bottleneck)
        self.up = nn.Linear(config.bottleneck, site.dim_out)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def leave(self, x: Tensor, y: Tensor, context: Context) -> Tensor:
        """Change what the sub-layer gives.

        Args:
            x: What the sub-layer read.
            y: Its output.
            context: Not read.
        """
        changed: Tensor = y + self.up(torch.relu(self.down(y)))
        return changed


def parameters(site: Site, config: ${kind}Config) -> int:
    """Count two weights d r and their biases r and d, at a site of width d."""
    return 2 * site.dim_out * config.bottleneck + config.bottleneck + site.dim_out


METHOD = Method(
    config=${kind}Config,
    adapter=${kind}Adapter,
    roles=("ffn",),
    source="https://arxiv.org/abs/1902.00751 section 2.1",
    tiny=${kind}Config(bottleneck=4),
    parameters=parameters,
)
'''

_TEST = '''"""$title against its formula, computed by hand."""

from __future__ import annotations

import torch

from $module import (
    METHOD,
    ${kind}Adapter,
    ${kind}Config,
)
from speechadapt.adapters.spec import Context
from speechadapt.encoders.sites import Site

SITE = Site("layer.0.ffn", "fc1", "fc2", 2, 2)
CONFIG = ${kind}Config(bottleneck=1)


def test_a_frame_is_changed_as_computed_by_hand() -> None:
    adapter = ${kind}Adapter(SITE, CONFIG)
    with torch.no_grad():
        adapter.down.weight.copy_(torch.tensor([[1.0, -1.0]]))
        adapter.down.bias.fill_(0.5)
        adapter.up.weight.copy_(torch.tensor([[2.0], [0.0]]))
    frames = torch.tensor([[[3.0, 1.0], [1.0, 3.0]]])
    # relu(3 - 1 + 0.5) = 2.5 and relu(1 - 3 + 0.5) = 0, doubled in the first channel
    expected = torch.tensor([[[8.0, 1.0], [1.0, 3.0]]])
    torch.testing.assert_close(adapter.leave(frames, frames, Context()), expected)


def test_nothing_changes_at_the_start() -> None:
    adapter = ${kind}Adapter(SITE, CONFIG)
    frames = torch.randn(2, 3, 2)
    assert torch.equal(adapter.leave(frames, frames, Context()), frames)


def test_the_closed_form_counts_every_parameter() -> None:
    adapter = ${kind}Adapter(SITE, CONFIG)
    counted = sum(one.numel() for one in adapter.parameters())
    assert METHOD.parameters(SITE, CONFIG) == counted
'''


def check_name(name: str) -> None:
    """Refuse a name that a method cannot have.

    Args:
        name: The method's name, which is its file's stem.

    Raises:
        ConfigError: It is no lower-case Python name, or a method has it already.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigError(
            f"a method was to be called '{name}', but its name is a file's stem and a module's. "
            "Use lower-case words joined by '_', such as tiny_gate."
        )
    if name in method_names():
        raise ConfigError(f"there is an adapter method '{name}' already. Choose another name.")


def method_source(name: str) -> str:
    """Return the text of a new method's file.

    Args:
        name: The method's name.

    Raises:
        ConfigError: See `check_name`.
    """
    check_name(name)
    return _filled(_METHOD, name, "")


def golden_test_source(name: str, module: str) -> str:
    """Return the text of a new method's test file.

    Args:
        name: The method's name, which `method_source` took.
        module: The dotted name of its module.
    """
    return _filled(_TEST, name, module)


def entry_point(name: str, module: str) -> str:
    """Return the lines of a `pyproject.toml` that offer another package's method.

    Args:
        name: The method's name.
        module: The dotted name of its module.
    """
    return f'[project.entry-points."{GROUP}"]\n{name} = "{module}"'


def write_new(files: Mapping[Path, str]) -> None:
    """Write files that are not there yet: all of them, or none.

    Args:
        files: Texts by path.

    Raises:
        ConfigError: One of them is there already; it is left as it is.
    """
    for path in files:
        if path.exists():
            raise ConfigError(
                f"'{path}' was to be written, but is there already. Move it away first."
            )
    for path, text in files.items():
        atomic_write_text(path, text)


def _filled(template: str, name: str, module: str) -> str:
    words = name.split("_")
    return Template(template).substitute(
        name=name,
        kind="".join(word.capitalize() for word in words),
        title=" ".join([words[0].capitalize(), *words[1:]]),
        module=module,
    )
