"""Vision transformers that compute the class token only.

Dosovitskiy et al. 2021, arXiv:2010.11929 (the architecture, timm's implementation); Zhou et al. 2022, arXiv:2111.07832
(iBOT, how the published weights were trained).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ClassTokenEncoder(nn.Module):
    """The first `blocks` blocks of a timm ViT; the output is the class token, without the final norm.

    Parameters
    ----------
    timm_name : an architecture of timm, such as ``vit_large_patch16_224``
    blocks : how many of its blocks run
    """

    def __init__(self, timm_name: str, blocks: int) -> None:
        super().__init__()
        import timm  # here and not above: it takes two seconds, and networks in int8 do without

        # norm and head are left out: no weight is stored, loaded or moved that never runs
        vit: Any = timm.create_model(timm_name, pretrained=False, num_classes=0, depth=blocks)
        self.patch_embed: nn.Module = vit.patch_embed
        self.cls_token: nn.Parameter = vit.cls_token
        self.pos_embed: nn.Parameter = vit.pos_embed
        self.blocks: nn.Sequential = vit.blocks
        self.width: int = vit.embed_dim
        for module in self.blocks.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear  # the same parameters, by the same names

    def tokens(self, images: Tensor) -> Tensor:
        """Class token and patch tokens (B, 1 + patches, width) before the first block, of images (B, 3, H, W)."""
        patches = self.patch_embed(images)
        return torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], dim=1) + self.pos_embed

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (B, width) of images (B, 3, 224, 224)."""
        x = self.tokens(images)
        for block in self.blocks[:-1]:
            x = block(x)
        return class_token_after(self.blocks[-1], x)


class Linear(nn.Linear):
    """A linear layer that `linear` computes."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` of tokens (B, N, C); on a CPU twice as fast in float32.

    PyTorch gives float32 matrix products to MKL, which on processors of other makers uses half of their vector width,
    and convolutions to oneDNN, which uses all of it: so this is a 1×1 convolution over a column of tokens. Other
    runtimes, which trace the network, get the matrix product.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.jit.is_tracing():
        return F.linear(x, weight, bias)
    batch, count, width = x.shape
    column = x.reshape(1, batch * count, 1, width).permute(0, 3, 1, 2)  # (1, C, B·N, 1), channels last
    out = F.conv2d(column, weight.view(*weight.shape, 1, 1), bias)
    return out.permute(0, 2, 3, 1).reshape(batch, count, -1)


def class_token_after(block: Any, x: Tensor) -> Tensor:
    """The class token (B, C) after a block that gets tokens (B, N, C).

    Keys and values come from every token, but only the class token asks, so that all else of the block runs on one
    token of N: the last block costs about a sixth.
    """
    attention = block.attn
    batch, count, width = x.shape
    heads = attention.num_heads
    normed = block.norm1(x)
    weight_q, weight_kv = attention.qkv.weight.split([width, 2 * width])
    bias_q, bias_kv = attention.qkv.bias.split([width, 2 * width])
    query = linear(normed[:, :1], weight_q, bias_q).view(batch, 1, heads, -1).transpose(1, 2)
    key, value = linear(normed, weight_kv, bias_kv).view(batch, count, 2, heads, -1).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(query, key, value)
    token = x[:, :1] + attention.proj(attended.transpose(1, 2).reshape(batch, 1, width))
    return (token + block.mlp(block.norm2(token)))[:, 0]
