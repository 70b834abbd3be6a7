"""The published weights of the severity method: STOIC 2021, as `balaitous weights fetch stoic` gets them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from balaitous.severity.pack import pack
from balaitous.weights.pack import Facts
from balaitous.weights.registry import PublishedBundle, PublishedFile

# Made from the published package's assets/balaitous.npz (36,090 bytes, float64, MIT, SHA-256
# 3adb710c85de34c6d4f173bddeb3a0d91ad0bd5382f581828721933f45b9a61f), below its comment header, by
#   python -c "from balaitous.severity.heads_file import *; print(heads_csv(read_heads('balaitous.npz')), end='')"
STOIC_HEADS = Path(__file__).with_name("stoic_heads.csv")
STOIC_CARD = Path(__file__).with_name("stoic_card.md")

ZENODO = "https://zenodo.org/records/6547999"
ZENODO_API = "https://zenodo.org/api/records/6547999"


def pack_stoic(files: Mapping[str, Path], out: Path, facts: Facts) -> Path:
    """Make the bundle of its files, with the heads and the card that this package carries; as `pack`."""
    return pack({**files, "heads": STOIC_HEADS}, out, facts=facts, card=STOIC_CARD.read_text(encoding="utf-8"))


STOIC = PublishedBundle(
    facts=Facts(
        name="stoic",
        licence=f"heads MIT (balaitous 1.2); lung U-Net Apache-2.0 (lungmask); encoders as stated at {ZENODO}",
        training={
            "heads": "logistic regressions fitted on the public STOIC 2021 training set (2,000 patients), "
            "balaitous 1.2",
            "encoder_full": "iBOT ViT-L/16 from ImageNet-22k, 35 more epochs on 165k CT slices of 4k patients",
            "encoder_lung": "iBOT ViT-L/16, ImageNet-22k",
            "lung_unet": "R231: 231 cases, Hofmanninger et al. 2020",
        },
        metrics={
            "source": "as published with balaitous 1.2, not measured here; ROC-AUC in percent",
            "cross_validation": {"auc_severe": 80.36, "auc_covid": 82.98, "patients": 2000},
            "qualification_leaderboard": {"auc_severe": 80.44, "auc_covid": 83.22, "patients": 800},
        },
    ),
    files=(
        PublishedFile(
            network="lung_unet",
            name="unet_r231-d5d2fc3d.pth",
            url="https://github.com/JoHof/lungmask/releases/download/v0.0/unet_r231-d5d2fc3d.pth",
            size_bytes=124_000_000,
            sha256_prefix="d5d2fc3d",
            licence="Apache-2.0 (lungmask)",
            citation="Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2",
        ),
        PublishedFile(
            network="encoder_full",
            name="vitl_16_ct.pth",
            url=f"{ZENODO}/files/vitl_16_ct.pth?download=1",
            size_bytes=1_220_000_000,
            record_api=ZENODO_API,
            licence=f"as stated at {ZENODO}",
            citation="Jégou, balaitous, https://github.com/SimJeg/balaitous; Zhou et al. 2022 (iBOT), arXiv:2111.07832",
        ),
        PublishedFile(
            network="encoder_lung",
            name="vitl_16_pt22k.pth",
            url=f"{ZENODO}/files/vitl_16_pt22k.pth?download=1",
            size_bytes=1_220_000_000,
            record_api=ZENODO_API,
            licence=f"as stated at {ZENODO}; first published by the authors of iBOT",
            citation="Zhou et al. 2022 (iBOT), arXiv:2111.07832",
        ),
    ),
    pack=pack_stoic,
)

PUBLISHED = {bundle.name: bundle for bundle in (STOIC,)}
