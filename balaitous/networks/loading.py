"""A network and its weights, put together strictly: nothing missing, nothing left over, nothing of another shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from balaitous.errors import WeightsError
from balaitous.networks.unet import UNet
from balaitous.networks.vit import ClassTokenEncoder

SHOWN = 3  # names of tensors that a message shows of each fault


def build_network(architecture: Mapping[str, Any]) -> nn.Module:
    """The network of a bundle's architecture record, without memory for its weights until `load_strictly`.

    Parameters
    ----------
    architecture : ``{"kind": "unet", "classes", "depth", "width"}`` or ``{"kind": "vit", "timm_name", "blocks"}``

    Raises
    ------
    WeightsError : timm has no architecture of that name, or not with that many blocks
    """
    numbers = {key: value for key, value in architecture.items() if key != "kind"}
    if architecture["kind"] == "vit":
        import timm  # takes two seconds: files are hashed meanwhile, and networks in int8 do without

        # is_model before create_model: the latter would look a name such as "hf-hub:…" up on the internet
        if not timm.is_model(name := numbers["timm_name"]):
            raise WeightsError(f"architecture {name!r} must be the name of a ViT of timm. Pack it again.")
    with torch.device("meta"):  # initial values would take seconds to draw and be overwritten at once
        return UNet(**numbers) if architecture["kind"] == "unet" else ClassTokenEncoder(**numbers)


def check_fit(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Check that `state` holds exactly the module's tensors, in their shapes.

    Raises
    ------
    WeightsError : says how many tensors are missing, unexpected or of another shape, and names the first few
    """
    wanted = module.state_dict()
    faults = {
        "missing": [key for key in wanted if key not in state],
        "not expected": [key for key in state if key not in wanted],
        "of another shape": [
            f"{key}: expected {tuple(tensor.shape)}, found {tuple(state[key].shape)}"
            for key, tensor in wanted.items()
            if key in state and state[key].shape != tensor.shape
        ],
    }
    found = [f"{len(keys)} {fault} ({_first(keys)})" for fault, keys in faults.items() if keys]
    if found:
        raise WeightsError(
            f"{source}: expected exactly the {len(wanted)} tensors of its network, found {'; '.join(found)}. "
            "Is it the right file? Fetch or pack the bundle again."
        )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give the module its weights. Tensors of the module's dtype are taken as they are, memory-mapped ones included.

    Parameters
    ----------
    module : best made by `build_network`; afterwards it lies where the tensors of `state` lie
    state : every tensor of the module by name; tensors of another dtype (float16 files) are converted
    source : the file, for the message

    Raises
    ------
    WeightsError : as `check_fit`
    """
    check_fit(module, state, source=source)
    wanted = module.state_dict()
    module.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in state.items()}, assign=True)


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
