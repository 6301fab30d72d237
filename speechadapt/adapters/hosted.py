"""Methods that change another method's tensors before they are used.

The adapter at a site is the host's own. Its matrices alone are computed from what is trained,
whenever they are read (torch's parametrisations), so it acts, mixes with others and merges as the
host does. Vectors (biases, norms, scales) stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from speechadapt.adapters.attach import build, install
from speechadapt.adapters.catalog import method as method_of
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.spec import Adapter, Method
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.encoders.sites import Site

RuleT = TypeVar("RuleT", bound=nn.Module)
_INNER = "parametrizations."


@runtime_checkable
class Hosted(Protocol):
    """Settings that name a host."""

    @property
    def host(self) -> str:
        """The method whose tensors are changed."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Its settings."""


@dataclass(frozen=True)
class Place(Generic[RuleT]):
    """One matrix of a host.

    Args:
        key: Its name in the host's own file.
        rule: What computes it.
        trained: What it is computed from.
    """

    key: str
    rule: RuleT
    trained: nn.Parameter


def host_problems(config: Hosted) -> list[str]:
    """Say whether there is no such host, it cannot be one, or its settings do not fit."""
    try:
        host = method_of(config.host)
    except CatalogError as error:
        return [f"adapter.host: {error}"]
    if host.shared or host.resolve or host.begin or host.after_step:
        return [
            f"adapter.host={config.host} was asked for, whose tensors are shared by all sites or "
            "changed by itself. Choose a host such as parallel, houlsby or lora."
        ]
    return bind(host.config, config.settings, "adapter.settings")[1]


def host_of(config: Hosted) -> tuple[Method, Any]:
    """Return the host and its settings.

    Raises:
        ConfigError: See `host_problems`.
    """
    if problems := host_problems(config):
        raise ConfigError(" ".join(problems))
    host = method_of(config.host)
    return host, bind(host.config, config.settings)[0]


def matrices(adapter: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return the parameters of two or more dimensions: module and attribute by the name in a file.

    Args:
        adapter: A host's adapter, not yet changed.
    """
    return {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in adapter.named_modules()
        for name, tensor in module.named_parameters(recurse=False)
        if tensor.ndim > 1
    }


def host_shapes(host: Method, settings: Any, site: Site) -> dict[str, torch.Size]:
    """Return the shapes of a host's matrices at a site, by their names, making none of them."""
    with torch.device("meta"):
        adapter = host.adapter(site, settings, None)
    return {key: getattr(module, name).shape for key, (module, name) in matrices(adapter).items()}


def transform(adapter: Adapter, make: Callable[[str, Tensor], nn.Module | None]) -> Adapter:
    """Have the matrices of a host's adapter computed by rules.

    Args:
        adapter: The host's adapter.
        make: Returns the rule of a matrix from its name and its start, or None to leave it alone.

    Returns:
        `adapter`.
    """
    mode = adapter.training
    adapter.eval()  # rules are tried out here, and some draw at random in training
    for key, (module, name) in matrices(adapter).items():
        rule = make(key, getattr(module, name).detach())
        if rule is not None:
            parametrize.register_parametrization(module, name, rule)
    return adapter.train(mode)


def wake(adapter: Adapter, std: float) -> None:
    """Give matrices that start at zero values of a normal distribution cut at two deviations.

    Args:
        adapter: The host's adapter, not yet changed.
        std: Standard deviation.
    """
    for module, name in matrices(adapter).values():
        matrix = getattr(module, name)
        if matrix.is_meta or not bool(matrix.any()):
            nn.init.trunc_normal_(matrix, std=std, a=-2 * std, b=2 * std)


def places(adapter: nn.Module, kind: type[RuleT]) -> Iterator[Place[RuleT]]:
    """Yield the matrices that rules of a kind compute, in the host's order.

    Args:
        adapter: What `transform` returned.
        kind: The rules' class.
    """
    for path, module in adapter.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        stacks: Any = module.parametrizations
        for name, stack in stacks.items():
            if isinstance(stack[0], kind):
                yield Place(f"{path}.{name}" if path else name, stack[0], stack.original)


def rest(adapter: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that no rule computes, by their names in the host's file."""
    state = adapter.state_dict(keep_vars=True)
    return {key: tensor for key, tensor in state.items() if _INNER not in key}


def fill_rest(
    adapter: nn.Module, tensors: Mapping[str, Tensor], packed: Mapping[str, Tensor]
) -> None:
    """Fill the tensors that no rule computes.

    Args:
        adapter: What `transform` returned.
        tensors: What a file holds.
        packed: What of it has been read already.

    Raises:
        CheckpointError: One is missing, too many, or of another shape.
    """
    own, kept = rest(adapter), {key: one for key, one in tensors.items() if key not in packed}
    if own.keys() != kept.keys():
        odd = min(own.keys() ^ kept.keys())
        raise CheckpointError(f"'{odd}' is {'missing' if odd in own else 'one tensor too many'}.")
    with torch.no_grad():
        for key, tensor in own.items():
            check_shape(kept[key], key, tuple(tensor.shape))
            tensor.copy_(kept[key])


def take(tensors: Mapping[str, Tensor], key: str) -> Tensor:
    """Return a tensor that a file must hold.

    Raises:
        CheckpointError: It does not.
    """
    if key not in tensors:
        raise CheckpointError(f"'{key}' is missing.")
    return tensors[key]


def check_shape(tensor: Tensor, key: str, shape: tuple[int, ...]) -> None:
    """Refuse a stored tensor of another shape.

    Raises:
        CheckpointError: It has one.
    """
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"'{key}' is {list(tensor.shape)}, but {list(shape)} are wanted.")


def as_host(handle: Handle, name: str) -> Handle:
    """Attach the host's adapter that does what a hosted one does when it is not in training.

    It is an ordinary adapter, which other tools' formats can hold.

    Args:
        handle: An attachment of a hosted method.
        name: What to call the new one.

    Returns:
        The host's attachment, installed and not yet active.

    Raises:
        ConfigError: The attachment is of a method without a host.
    """
    config = handle.config
    if handle.method.resolve is None:
        raise ConfigError(
            f"'{handle.name}' was to become its host's adapter, but is of the method "
            f"'{handle.method_name}', which has no host."
        )
    _, settings = host_of(config)
    roles = [site.role for site in handle.sites]
    plain = build(
        handle.encoder,
        config.host,
        name=name,
        config=settings,
        roles=roles,
        train_norms=handle.train_norms,
    )
    plain.roles = handle.roles
    ours, theirs = handle.module.by_role(), plain.module.by_role()
    mode = handle.module.training
    handle.module.eval()
    with torch.no_grad():
        for role, adapter in theirs.items():
            for key, tensor in adapter.state_dict(keep_vars=True).items():
                owner, _, attribute = key.rpartition(".")
                tensor.copy_(getattr(ours[role].get_submodule(owner), attribute))
    handle.module.train(mode)
    plain.module.eval()
    install(plain, activate=False)
    return plain
