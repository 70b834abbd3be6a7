"""Class activation maps: where in a picture a network finds what speaks for an output.

A map is a weighted sum of a layer's feature maps A_k (h, w), of which what is negative is cut off. With S the output's
logit and G_k = ∂S/∂A_k:

Grad-CAM
    map = ReLU(Σ_k α_k A_k), α_k = mean of G_k over h, w
Grad-CAM++
    map = ReLU(Σ_k α_k A_k), α_k = Σ_{h,w} a_k · ReLU(G_k), a_k = G_k² / (2 G_k² + G_k³ Σ_{h,w} A_k)

Of mean-pooled features and a linear layer with weights w_k, G_k = w_k/(h·w), so that Grad-CAM is
ReLU(Σ_k w_k A_k)/(h·w): the class activation map of Zhou et al. 2016.

References
----------
Selvaraju et al. 2017, arXiv:1610.02391 (Grad-CAM); Chattopadhyay et al. 2018, arXiv:1710.11063 (Grad-CAM++).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def grad_cam(network: nn.Module, layers: Sequence[nn.Module], images: Tensor, output: int) -> Tensor:
    """Grad-CAM of an output.

    Parameters
    ----------
    network : images (B, C, H, W) in, logits (B, outputs) out; in evaluation mode
    layers : whose outputs are feature maps (B, K, h, w); maps of several are averaged, each divided by its largest
        value, at the size of the largest of them
    output : its index

    Returns
    -------
    (B, h, w) ≥ 0, float32, on the network's device

    Raises
    ------
    ValueError : there is no such output, no layer, or one whose output is no feature map
    """
    return _maps(network, layers, images, output, _grad_cam_weights)


def grad_cam_pp(network: nn.Module, layers: Sequence[nn.Module], images: Tensor, output: int) -> Tensor:
    """Grad-CAM++ of an output: as `grad_cam`, which sees several places of one kind at once."""
    return _maps(network, layers, images, output, _grad_cam_pp_weights)


def _grad_cam_weights(features: Tensor, gradients: Tensor) -> Tensor:
    return gradients.mean(dim=(2, 3))


def _grad_cam_pp_weights(features: Tensor, gradients: Tensor) -> Tensor:
    square = gradients.square()
    below = 2 * square + gradients * square * features.sum(dim=(2, 3), keepdim=True)
    shares = torch.where(below != 0, square / torch.where(below != 0, below, 1), 0)
    return (shares * gradients.relu()).sum(dim=(2, 3))


def _maps(
    network: nn.Module,
    layers: Sequence[nn.Module],
    images: Tensor,
    output: int,
    weights_of: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    if not layers:
        raise ValueError("layers must name at least one layer of the network. Got none.")
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], found: Tensor) -> Tensor:
        if found.ndim != 4:
            raise ValueError(
                f"layers must give feature maps (B, K, h, w). Got an output of shape {tuple(found.shape)}."
            )
        # Nothing below the first layer needs a gradient. What follows gets a copy: activations may write in place.
        seen.append(found if found.requires_grad else found.detach().requires_grad_())
        return seen[-1].clone()

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.enable_grad():
            logits = network(images)
            if not 0 <= output < logits.shape[1]:
                raise ValueError(f"output must be in 0…{logits.shape[1] - 1}. Got {output} instead.")
            gradients = torch.autograd.grad(logits[:, output].sum(), seen)
    finally:
        for handle in handles:
            handle.remove()
    maps = []
    for features, gradient in zip(seen, gradients, strict=True):
        features, gradient = features.detach().float(), gradient.float()
        maps.append(torch.einsum("bk,bkhw->bhw", weights_of(features, gradient), features).relu())
    if len(maps) == 1:
        return maps[0]
    size = max(each.shape[-2:] for each in maps)
    scaled = [each / each.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(each.dtype).tiny) for each in maps]
    return torch.stack(
        [F.interpolate(each[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] for each in scaled]
    ).mean(dim=0)
