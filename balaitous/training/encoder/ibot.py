"""Self-distillation of an encoder on slices without labels: iBOT.

A student sees small and masked views of a slice, a teacher sees the large ones whole; the student learns to say of
every view what the teacher says of another one (class token, as in DINO), and of every masked patch what the teacher
says of it (patch tokens). The teacher is the moving average of the student.

References
----------
Zhou et al. 2022, arXiv:2111.07832 (iBOT); Caron et al. 2021, arXiv:2104.14294 (DINO). Losses, heads, masks and the
masked ViT are those of the library lightly.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss
from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
from lightly.models.utils import random_block_mask, update_momentum
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from balaitous.errors import WeightsError
from balaitous.networks.layouts import UNUSED_IN_VIT

LEAST_BLOCK = 4  # patches of the rectangles that masks are made of, as in DINOv2


@dataclass(frozen=True)
class IbotSettings:
    """The two heads, the masks and the temperatures.

    Attributes
    ----------
    prototypes : outputs of each head
    hidden, bottleneck : widths inside the heads
    masked_images : share of the images with a mask
    mask_share : the least and the most share of such an image's patches that is hidden
    teacher_temperature : of the softmax, at the start and after the warm-up
    student_temperature : of the softmax
    """

    prototypes: int = 8192
    hidden: int = 2048
    bottleneck: int = 256
    masked_images: float = 0.5
    mask_share: tuple[float, float] = (0.1, 0.5)
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    student_temperature: float = 0.1

    def fewest_masked(self, patches: int) -> int:
        """Patches that a mask hides at least."""
        return int(self.mask_share[0] * patches)


def make_vit(timm_name: str, blocks: int | None, state: Mapping[str, Tensor] | None = None, source: str = "") -> Any:
    """A ViT of timm without classifier, for images of any size.

    Parameters
    ----------
    blocks : how many it has; None: all of its architecture
    state : weights in timm's or iBOT's names; None: drawn anew
    source : of the weights, for errors

    Raises
    ------
    ValueError : timm knows no such ViT
    WeightsError : the weights are those of another architecture
    """
    depth: dict[str, Any] = {} if blocks is None else {"depth": blocks}
    try:
        vit: Any = timm.create_model(timm_name, pretrained=False, num_classes=0, dynamic_img_size=True, **depth)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"timm_name must be a ViT of timm. Got {timm_name!r} instead ({error}).") from None
    if not isinstance(vit, VisionTransformer) or vit.pos_embed is None:
        raise ValueError(f"timm_name must be a plain ViT with a class token. Got {timm_name!r} instead.")
    if state is not None:
        wanted = {key: tensor for key, tensor in state.items() if key in vit.state_dict()}
        others = [key for key in state if key not in wanted and key not in UNUSED_IN_VIT]
        missing = [key for key in vit.state_dict() if key not in wanted and key not in UNUSED_IN_VIT]
        shapes = [key for key in wanted if wanted[key].shape != vit.state_dict()[key].shape]
        if others or missing or shapes:
            raise WeightsError(
                f"{source}: expected the weights of {timm_name} with {len(vit.blocks)} blocks, found "
                f"{len(missing)} tensors missing, {len(others)} unknown and {len(shapes)} of another shape "
                f"({', '.join([*missing, *others, *shapes][:3])}). Name the same architecture in the recipe."
            )
        vit.load_state_dict(wanted, strict=False)
    return vit


class Branch(nn.Module):
    """An encoder with its two heads: student or teacher."""

    def __init__(self, vit: nn.Module, settings: IbotSettings) -> None:
        super().__init__()
        self.encoder = MaskedVisionTransformerTIMM(
            vit=vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        sizes = (vit.embed_dim, settings.hidden, settings.bottleneck, settings.prototypes)
        self.class_head, self.patch_head = (DINOProjectionHead(*sizes, norm_last_layer=True) for _ in range(2))

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class answers (B, prototypes) and patch tokens (B, patches, width) of images (B, 3, Y, X).

        Parameters
        ----------
        mask : (B, rows, columns), True for the patches that are hidden
        """
        prefix = self.encoder.vit.num_prefix_tokens  # the class token, and registers if the ViT has any
        hidden = None
        if mask is not None:
            hidden = torch.cat([mask.new_zeros(len(mask), prefix), mask.flatten(1)], dim=1)
        tokens = self.encoder.encode(images, mask=hidden)
        return self.class_head(tokens[:, 0]).float(), tokens[:, prefix:]


class ClassToken(nn.Module):
    """What the method takes from an encoder: the class token, without the final norm."""

    def __init__(self, encoder: MaskedVisionTransformerTIMM) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (B, width) of images (B, 3, Y, X)."""
        tokens = self.encoder.vit.norm_pre(self.encoder.preprocess(images))
        return self.encoder.vit.blocks(tokens)[:, 0]


class Ibot(nn.Module):
    """Student, teacher and losses.

    Parameters
    ----------
    vit : where both start
    """

    def __init__(self, vit: nn.Module, settings: IbotSettings) -> None:
        super().__init__()
        self.settings = settings
        self.student, self.teacher = Branch(vit, settings), Branch(copy.deepcopy(vit), settings)
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.class_loss = DINOLoss(settings.prototypes, student_temp=settings.student_temperature)
        self.patch_loss = IBOTPatchLoss(settings.prototypes, student_temp=settings.student_temperature)

    def forward(self, large: list[Tensor], small: list[Tensor], teacher_temperature: float) -> tuple[Tensor, Tensor]:
        """The class loss and the patch loss of one batch.

        Parameters
        ----------
        large : two views (B, 3, Y, X) of each slice
        small : more views, smaller
        """
        images = torch.cat(large)
        rows, columns = self.student.encoder.vit.patch_embed.dynamic_feat_size(images.shape[-2:])
        mask = random_block_mask(
            (len(images), rows, columns),
            min_num_masks_per_block=min(LEAST_BLOCK, self.settings.fewest_masked(rows * columns)),
            batch_mask_ratio=self.settings.masked_images,
            min_image_mask_ratio=self.settings.mask_share[0],
            max_image_mask_ratio=self.settings.mask_share[1],
            device=images.device,
        )
        with torch.no_grad():
            teacher_class, teacher_tokens = self.teacher(images)
            teacher_patches = self.teacher.patch_head(teacher_tokens[mask.flatten(1)]).float()
        student_class, student_tokens = self.student(images, mask)
        student_patches = self.student.patch_head(student_tokens[mask.flatten(1)]).float()
        answers = list(student_class.chunk(len(large)))
        if small:
            answers += list(self.student(torch.cat(small))[0].chunk(len(small)))
        with torch.autocast(images.device.type, enabled=False):  # three digits are too few for a loss
            class_loss = self.class_loss(
                list(teacher_class.chunk(len(large))), answers, teacher_temp=teacher_temperature
            )
            patch_loss = self.patch_loss(teacher_patches, student_patches, mask, teacher_temp=teacher_temperature)
        return class_loss, patch_loss

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student."""
        update_momentum(self.student, self.teacher, momentum)

    def freeze_last_layers(self) -> None:
        """Drop the gradients of the heads' last layers, as in the first epochs of DINO."""
        for head in (self.student.class_head, self.student.patch_head):
            for each in head.last_layer.parameters():
                each.grad = None

    def encoder_state(self) -> dict[str, Tensor]:
        """The teacher's weights in timm's names, as `weights pack` reads them."""
        vit = self.teacher.encoder.vit
        return {name: tensor.detach().cpu().contiguous() for name, tensor in vit.state_dict().items()}
