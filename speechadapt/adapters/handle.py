"""What an attachment is made of: the module of its adapters, and the handle that describes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from speechadapt.adapters.norms import NormAdapter
from speechadapt.adapters.routing import Router
from speechadapt.adapters.spec import Adapter, BatchLoss, Method
from speechadapt.core.errors import CatalogError, near_misses
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.sites import Site


class AdapterSet(nn.Module):
    """All adapters of one attachment, as an ordinary module.

    Args:
        sites: The sites of the method.
        norm_sites: The norms trained beside it.
        method: The method.
        config: Its settings.

    Attributes:
        sites: Adapters by role, with `/` for `.`, which torch does not allow in a name.
        norms: Trained norms by role, likewise.
        shared: What all adapters share, where the method has such a module.
    """

    def __init__(
        self, sites: Sequence[Site], norm_sites: Sequence[Site], method: Method, config: Any
    ) -> None:
        super().__init__()
        self.shared = None if method.shared is None else method.shared(sites, config)
        self.sites = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        for site in sites:
            adapter = method.adapter(site, config, self.shared)
            _keep_apart(adapter, self.shared)
            self.sites[site.role.replace(".", "/")] = adapter
        for site in norm_sites:
            self.norms[site.role.replace(".", "/")] = NormAdapter(site)

    def adapters(self) -> list[Adapter]:
        """Return the method's adapters, in the encoder's order, without the norms."""
        return [one for one in self.sites.values() if isinstance(one, Adapter)]

    def by_role(self) -> dict[str, Adapter]:
        """Return the adapters and the trained norms by role."""
        both = [*self.sites.items(), *self.norms.items()]
        return {key.replace("/", "."): one for key, one in both if isinstance(one, Adapter)}

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor as a file names it: `<role>:<parameter>`, `shared:<parameter>`."""
        found = {
            f"{role}:{key}": tensor
            for role, adapter in self.by_role().items()
            for key, tensor in adapter.state_dict(keep_vars=True).items()
        }
        if self.shared is not None:
            state = self.shared.state_dict(keep_vars=True)
            found |= {f"shared:{key}": tensor for key, tensor in state.items()}
        return found


def _keep_apart(adapter: nn.Module, shared: nn.Module | None) -> None:
    """Hold a shared module by a plain attribute, so that its tensors are counted once."""
    for key, child in list(adapter._modules.items()):
        if shared is not None and child is shared:
            del adapter._modules[key]
            adapter.__dict__[key] = child


@dataclass(eq=False)
class Handle:
    """One attachment: a method with its settings at chosen sites of one encoder, under a name.

    Attributes:
        name: Its name on the encoder.
        method_name: The method's name in the catalogue.
        method: The method.
        config: Its settings.
        roles: The role patterns it was asked for.
        train_norms: `none`, `adapted` or `all`.
        sites: The sites it hit, in the encoder's order.
        norm_sites: The norms trained beside it.
        module: Its adapters; an ordinary module to train, move or save.
        encoder: The encoder it is attached to.
        notes: What a saved file said about it (training data, scores, head), by subject.
        base: What it was attached to (see `base_of`), once something asked for it.
        composition: What it is composed of, as text; None of an ordinary adapter.
    """

    name: str
    method_name: str
    method: Method
    config: Any
    roles: tuple[str, ...]
    train_norms: str
    sites: tuple[Site, ...]
    norm_sites: tuple[Site, ...]
    module: AdapterSet
    encoder: Encoder
    notes: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] | None = None
    composition: str | None = None

    @property
    def merged(self) -> bool:
        """Whether its change is in the encoder's weights now."""
        return self.name in getattr(self.encoder.attached, "merged", ())

    @property
    def streams(self) -> int:
        """How many rows of the encoder's batch a row of the caller's becomes."""
        return 1 if self.method.streams is None else self.method.streams(self.config)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trainable tensors."""
        return self.module.parameters()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the trainable tensors with their names in a file."""
        for key, tensor in self.module.tensors().items():
            if isinstance(tensor, nn.Parameter):
                yield key, tensor

    def num_parameters(self) -> int:
        """Return the number of trainable parameters, without those that are held at zero."""
        held = 0 if self.method.held is None else self.method.held(self.module.adapters())
        return sum(tensor.numel() for tensor in self.parameters()) - held

    def expected_parameters(self) -> int:
        """Return what the method's closed form says that number is."""
        method, config = self.method, self.config
        total = sum(method.parameters(site, config) for site in self.sites)
        if method.shared_parameters is not None:
            total += method.shared_parameters(self.sites, config)
        return total + sum(2 * site.dim_out for site in self.norm_sites)

    def penalty(self) -> Tensor | None:
        """Return the method's extra loss, None where it has none."""
        if self.method.penalty is None:
            return None
        return self.method.penalty(self.module.adapters())

    def begin(self, loss: BatchLoss) -> None:
        """Let the method act before the first step.

        Args:
            loss: Returns the loss of the training batch of a number, to be differentiated.
        """
        if self.method.begin is not None:
            self.method.begin(self.module.adapters(), loss)

    def after_step(self, step: int) -> None:
        """Let the method act after an optimiser step.

        Args:
            step: Steps done so far.
        """
        if self.method.after_step is not None:
            self.method.after_step(self.module.adapters(), step)

    def figures(self) -> dict[str, float]:
        """Return what the method finds worth knowing of its trained adapters, by name."""
        if self.method.figures is None:
            return {}
        return dict(self.method.figures(self.module.adapters()))


def base_of(encoder: Encoder) -> dict[str, Any]:
    """Say which weights an encoder has.

    Args:
        encoder: The encoder, with nothing merged into it.

    Returns:
        `name` and `revision` (what it was loaded from, None where it was built in memory; of a
        folder its name alone), `family`, `fingerprint` and `dtype` of the weights in memory,
        and `files`, the fingerprint of the files they came from.
    """
    source = encoder.source
    folder = source is not None and Path(source.name).expanduser().is_dir()
    name = None if source is None else Path(source.name).name if folder else source.name
    return {
        "name": name,
        "revision": None if source is None else source.revision,
        "family": encoder.family,
        "fingerprint": encoder.fingerprint(),
        "dtype": str(next(encoder.model.parameters()).dtype).removeprefix("torch."),
        "files": None if source is None else source.fingerprint,
    }


def attachments(encoder: Encoder) -> dict[str, Handle]:
    """Return the attachments of an encoder by name, in the order they came.

    Args:
        encoder: The encoder.
    """
    router = encoder.attached
    return dict(router.handles) if isinstance(router, Router) else {}


def attachment(encoder: Encoder, name: str) -> Handle:
    """Return one attachment.

    Args:
        encoder: The encoder.
        name: The attachment's name.

    Raises:
        CatalogError: The encoder has none of that name; near misses are named.
    """
    known = attachments(encoder)
    if name not in known:
        raise CatalogError(f"no adapter called '{name}' is attached.{near_misses(name, known)}")
    return known[name]


def router_of(encoder: Encoder) -> Router:
    """Return what directs an encoder's adapters.

    Args:
        encoder: An encoder with at least one attachment.
    """
    assert isinstance(encoder.attached, Router)
    return encoder.attached
