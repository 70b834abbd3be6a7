"""The loss of LA-DNN: binary cross-entropy of every output, with a gate on those after the first.

With b_ik the cross-entropy of picture i and output k of K, w_k the output's weight, and m_i the gate:

    L = mean over i of (w_0 b_i0 + m_i Σ_{k>0} w_k b_ik) / K

Published: w = (5, 1, 1, 1, 1, 1) and m_i = 1 where the picture has any lesion. So only these teach the lesions, and
what the network says of lesions in pictures without disease is nothing it has learned: it says too much. Two variants
mend it.

=========  =============================================================
bearing    m_i = 1 where any output after the first is there (published)
negatives  also where the first output is not there
off        m_i = 1 everywhere
=========  =============================================================

References
----------
Liu et al. 2020, medRxiv 2020.05.11.20097907.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

GATES = ("bearing", "negatives", "off")


def gated_loss(logits: Tensor, labels: Tensor, weights: Sequence[float] = (), gate: str = "off") -> Tensor:
    """The loss above, a number.

    Parameters
    ----------
    logits : (B, K)
    labels : (B, K) of 0, 1, and NaN where it is not known, which teaches nothing
    weights : of the outputs; empty: 1 each
    gate : one of `GATES`
    """
    entropy = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0), reduction="none")
    share = torch.tensor(weights or [1.0] * labels.shape[1], dtype=logits.dtype, device=logits.device)
    counts = share * ~labels.isnan() * gate_of(labels, gate)
    return (entropy * counts).mean()


def gate_of(labels: Tensor, gate: str) -> Tensor:
    """Which labels (B, K) count, as 0 or 1; the first output's always do."""
    if gate == "off":
        return torch.ones_like(labels)
    open_ = (labels[:, 1:] == 1).any(dim=1)
    if gate == "negatives":
        open_ = open_ | (labels[:, 0] == 0)
    return torch.cat([torch.ones_like(labels[:, :1]), open_[:, None].expand(-1, labels.shape[1] - 1)], dim=1)
