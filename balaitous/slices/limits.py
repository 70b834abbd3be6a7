"""What the quality of a picture of a CT slice is held against: every limit with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from balaitous.checks import ANY, Limits
from balaitous.ct import quality_limits

CT_CHECKS = ("air_peak", "soft_tissue_peak", "slice_spacing")  # of a CT whose slices are looked at one by one

LIMITS: Mapping[str, Limits] = {
    **{name: quality_limits.LIMITS[name] for name in CT_CHECKS},
    # A vessel of 3 mm is one pixel where 400 mm are 128 of them.
    "smaller_side": Limits(
        "smaller side",
        "pixels",
        (96, ANY),
        (48, ANY),
        low="too few pixels to see lesions; give the picture as exported",
    ),
    # Of grey in 0…1. Slices of COVID-CT have 0.15 to 0.42; a picture of nothing has 0.
    "contrast": Limits(
        "standard deviation of grey",
        "",
        (0.05, ANY),
        (0.01, ANY),
        low="hardly anything is to be seen; use a lung window",
    ),
}
