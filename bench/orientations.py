"""What the checks of a scan's orientation say of scans in all 24 orientations, under a header that calls them axial.

usage: python bench/orientations.py SCAN…

No network runs: lungs are found as the air inside the patient, which is the same in every orientation. A mirror image
of a scan, left to right, gives the same numbers.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from itertools import permutations, product

import numpy as np

from balaitous.checks import check_value
from balaitous.ct.grid import Grid, StoredOrder
from balaitous.ct.orientation import orientation_margins
from balaitous.ct.quality_limits import LIMITS
from balaitous.ct.volume import CT, SPACING_MM, read_ct, resample

CHECKS = ("axial_slices", "back_behind", "head_above")


def lying(ct: CT, axes: tuple[int, ...], upside_down: bool, back_to_front: bool) -> CT:
    """The same voxels in another order, or their mirror image, as if they had been stored so."""
    hu = ct.hu.transpose(axes)[:: -1 if upside_down else 1, :: -1 if back_to_front else 1]
    spacing = ct.grid.spacing_mm[::-1]
    x, y, z = (spacing[axis] for axis in reversed(axes))
    return replace(ct, hu=np.ascontiguousarray(hu), grid=Grid(hu.shape, (x, y, z)), stored=StoredOrder())


def kind_of(axes: tuple[int, ...], upside_down: bool, back_to_front: bool) -> str:
    if axes[0] != 0:
        return "coronal" if axes[0] == 1 else "sagittal"
    turned = "across" if axes[1] != 1 else "back to front" if back_to_front else ""
    return ", ".join(filter(None, (turned, "upside down" if upside_down else ""))) or "as it is"


def main(scans: list[str]) -> None:
    counts: dict[str, Counter] = {}
    for scan in scans:
        ct = resample(read_ct(scan), SPACING_MM)
        for axes, upside_down, back_to_front in product(permutations(range(3)), (False, True), (False, True)):
            turned = resample(lying(ct, axes, upside_down, back_to_front), SPACING_MM)
            margins = orientation_margins(turned.hu, np.zeros(turned.hu.shape, np.uint8), turned.grid.spacing_mm)
            checks = [check_value(name, value, LIMITS[name]) for name, value in zip(CHECKS, margins, strict=True)]
            told = next((each for status in ("fail", "warn") for each in checks if each.status == status), None)
            kind = kind_of(axes, upside_down, back_to_front)
            counts.setdefault(kind, Counter())[told.status if told else "ok"] += 1
            values = " ".join("–" if each.value is None else f"{each.value:.2f}" for each in checks)
            print(f"{ct.name}\t{kind}\t{axes}\t{told.status if told else 'ok'}\t{values}", flush=True)
    for kind, statuses in counts.items():
        print(f"{kind}: {dict(statuses)}")


if __name__ == "__main__":
    main(sys.argv[1:])
