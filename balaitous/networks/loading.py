"""A network and its weights, put together strictly: nothing missing, nothing left over, nothing of another shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from balaitous.errors import WeightsError, reason_of
from balaitous.networks.classifier import Classifier
from balaitous.networks.unet import UNet
from balaitous.networks.vit import ClassTokenEncoder

# The network of each kind that bundles name. Its constructor's parameters are the keys of its architecture.
KINDS: Mapping[str, type[nn.Module]] = {
    "unet": UNet,
    "vit": ClassTokenEncoder,
    "timm": Classifier,
}

# From a bundle's numbers a network is laid out before its file is compared with it: absurd ones would take for ever.
# Four times and more what any published network has.
MOST = {"classes": 1024, "depth": 12, "width": 4096, "blocks": 256, "outputs": 1024}
FRACTIONS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SHOWN = 3  # names of tensors that a message shows of each fault
AGAIN = "Fetch or pack the bundle again."


def check_architecture(architecture: Mapping[str, Any], *, source: str) -> None:
    """Check that an architecture is of one of `KINDS`, with exactly the keys that this kind takes, of their types.

    Parameters
    ----------
    source : the file and the network, for the message

    Raises
    ------
    WeightsError : it is not
    """
    kind = architecture.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise WeightsError(f"{source}: kind must be one of {', '.join(KINDS)}. Got {repr(kind)[:80]} instead. {AGAIN}")
    expected = {key: each for key, each in get_type_hints(KINDS[kind].__init__).items() if key != "return"}
    if architecture.keys() != {"kind", *expected}:
        raise WeightsError(
            f"{source}: the architecture of kind {kind} must have {', '.join(expected)}. Got "
            f"{str(dict(architecture))[:200]} instead. {AGAIN}"
        )
    for key, kind_of_value in expected.items():
        if type(value := architecture[key]) is not kind_of_value:  # not isinstance: a bool must not pass for an int
            raise WeightsError(
                f"{source}: {key} must be of type {kind_of_value.__name__}. Got {repr(value)[:80]}. {AGAIN}"
            )
        if key in MOST and not 1 <= value <= MOST[key]:
            raise WeightsError(f"{source}: {key} must be from 1 to {MOST[key]}. Got {value:.6g} instead. {AGAIN}")


def build_network(architecture: Mapping[str, Any], *, source: str = "architecture") -> nn.Module:
    """The network of a bundle's architecture record, without memory for its weights until `load_strictly`.

    Parameters
    ----------
    architecture : ``{"kind": "unet", "classes", "depth", "width"}``, ``{"kind": "vit", "timm_name", "blocks"}`` or
        ``{"kind": "timm", "timm_name", "outputs"}``
    source : the file and the network, for the message

    Raises
    ------
    WeightsError : as `check_architecture`, and where timm has no architecture of that name, or one of another kind
    """
    check_architecture(architecture, source=source)
    numbers = {key: value for key, value in architecture.items() if key != "kind"}
    if "timm_name" in numbers:
        import timm  # takes two seconds: files are hashed meanwhile, and networks in int8 do without

        # is_model before create_model: the latter would look a name such as "hf-hub:…" up on the internet
        if not timm.is_model(name := numbers["timm_name"]):
            raise WeightsError(
                f"{source}: timm_name must be an architecture of timm. Got {name[:80]!r} instead. {AGAIN}"
            )
    try:
        with torch.device("meta"):  # initial values would take seconds to draw and be overwritten at once
            return KINDS[architecture["kind"]](**numbers)
    except (TypeError, ValueError, AttributeError, LookupError, AssertionError, RuntimeError) as error:
        # timm has networks of other kinds, and ViTs without a class token, too
        raise WeightsError(
            f"{source}: expected a network of kind {architecture['kind']}, {str(numbers)[:200]} make none "
            f"({reason_of(error)[:200]}). {AGAIN}"
        ) from error


def check_fit(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Check that `state` holds exactly the module's tensors, in their shapes, and fractions where it has fractions.

    Raises
    ------
    WeightsError : says how many tensors are missing, unexpected, of another shape or type, and names the first few
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
        "of another type": [
            f"{key}: expected {'fractions' if tensor.is_floating_point() else 'whole numbers'}, found "
            f"{str(state[key].dtype).removeprefix('torch.')}"
            for key, tensor in wanted.items()
            if key in state and state[key].dtype not in (FRACTIONS if tensor.is_floating_point() else WHOLE)
        ],
    }
    found = [f"{len(keys)} {fault} ({_first(keys)})" for fault, keys in faults.items() if keys]
    if found:
        raise WeightsError(
            f"{source}: expected exactly the {len(wanted)} tensors of its network, found {'; '.join(found)}. "
            f"Is it the right file? {AGAIN}"
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
