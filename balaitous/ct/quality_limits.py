"""What the quality of a chest CT is held against (`balaitous.ct.quality` measures it): every limit with its reason.

References
----------
[EUR] European Guidelines on Quality Criteria for Computed Tomography, EUR 16262 (1999).
[Cressoni] Limits of normality of quantitative thoracic CT analysis, 2013, doi:10.1186/cc12738.
[Cheng] Normal lung attenuation distribution and lung volume on CT, 2019, doi:10.2147/COPD.S187596.
"""

from __future__ import annotations

from collections.abc import Mapping

from balaitous.checks import ANY, Limits

NOT_HU = "these are not Hounsfield units; apply the scan's rescale slope and intercept once (air is -1000, water 0)"
LOOK = "look whether these are the lungs"
# "Real" is what the scans of docs/checks.md have.
LIMITS: Mapping[str, Limits] = {
    # 30 slices of 5 mm are 150 mm, and lungs are 200 to 300 mm high.
    "slices": Limits("axial slices", "", (30, ANY), low="few for a whole chest; give the whole series"),
    # Under 180 mm no adult's lungs are whole; over 700 mm the bowel's gas takes part in the search for lungs.
    "coverage": Limits(
        "length of the scan",
        "mm",
        (180, 700),
        low="short for whole lungs; give the whole chest with its spacing in mm",
        high="more than a chest; cut it to the chest, with its spacing in mm",
    ),
    # A chest is some 200 mm deep and 350 mm wide; scanners reconstruct up to 700 mm, some 800 mm.
    "field_of_view": Limits(
        "field of view, its narrower side",
        "mm",
        (200, 800),
        low="narrow for an adult's chest; give the whole field of view with its spacing in mm",
        high="wider than scanners reconstruct; correct the pixel spacing",
    ),
    # The networks see 1.5 mm. 2.75 mm is the widest field, 700 mm, on a matrix of 256×256: no scanner has more.
    "pixel_spacing": Limits("pixel spacing", "mm", (0, 2.75), high="low resolution; give the scan as reconstructed"),
    # The networks see 5 mm. [EUR] has up to 10 mm for a chest, and 10 to 20 mm between the slices of an old-style
    # HRCT: there three of four slices that the networks see are blends of two places. 1 % is left to rounding.
    "slice_spacing": Limits(
        "distance between slices",
        "mm",
        (0, 5.05),
        (0, 20.2),
        high="small opacities may lie between slices; give a thinner reconstruction",
    ),
    # Neighbours are more alike than slices 10 mm apart. Real: 0.30 to 0.67; in random order: 0.87 to 1.1.
    "slice_order": Limits(
        "difference of neighbouring slices, over that of slices 10 mm apart",
        "",
        (0, 0.8),
        high="the slices are not in their order, or noise hides the anatomy; look at the scan from the side",
    ),
    # Real: 1.02 to 1.35; with 20 mm missing: 1.3 to 5; with one to three slices empty: above 4. Phantoms, which have
    # sudden shapes, reach 2.
    "slice_jump": Limits(
        "largest difference of neighbouring slices, over that of the slices around them",
        "",
        (0, 1.5),
        high="slices are missing, empty or of another place, or the patient moved; look at the scan from the side",
    ),
    # Where two neighbours, or a run of slices, changed places, the scan is smoother with them reversed. Real: 0.56 to
    # 0.78; with two slices exchanged: 1.29 to 1.9.
    "slice_reversal": Limits(
        "difference of neighbouring slices, over that with some of them in reverse",
        "",
        (0, 1.1),
        high="slices changed places; look at the scan from the side",
    ),
    # Noise makes every slice another one. Equal ones are copies: of a lost slice's neighbour, or of a coarser scan.
    "slice_repeats": Limits(
        "slices equal to the one before", "", (0, 0), high="copies stand in for slices; give the scan as reconstructed"
    ),
    # What lies outside the scanner's field is to be air. Real: 0; a circle in a square: 50 to 90.
    "padding": Limits(
        "edge of the image that is one value, and not that of air",
        "%",
        (0, 1),
        high="padding is taken for tissue; set it to -1024",
    ),
    # Air is −1000 HU by definition, −1024 where it is clipped. In a narrow field of view lung (−850) may be the peak.
    "air_peak": Limits("peak of air", "HU", (-1050, -800), (-1100, -600), NOT_HU, NOT_HU, "fail"),
    # Muscle is near 50 HU, fat near −100 HU; either may be the peak, and in noise they merge.
    "soft_tissue_peak": Limits("peak of soft tissue", "HU", (-130, 90), (-160, 150), NOT_HU, NOT_HU, "fail"),
    # Bone and contrast agent are a few per cent. Where 1024 was not subtracted, all soft tissue is above 300 HU.
    "dense_share": Limits(
        "share of the body above 300 HU",
        "%",
        (0.3, 15),
        (0, 30),
        low="hardly any bone; give the chest without a display window applied",
        high=NOT_HU,
    ),
    # What a header leaves open was guessed as most readers do; of what it says in two ways one was taken.
    "header": Limits("doubts about the header", "", (0, 0), high="left open or told in two ways; correct the header"),
    # Differences of correlations (docs/checks.md). Real: 0.18 to 0.92; with a lung, or the backs of both, filled with
    # 40 HU: -0.1 at least; sagittal and coronal: -0.37 at most, but for one lung alone.
    "axial_slices": Limits(
        "likeness to a chest in axial slices, over sagittal and coronal ones",
        "",
        (-0.12, ANY),
        (-0.3, ANY),
        low="the slices are not axial, whatever the header says; write the image with its true directions",
    ),
    # Real: 0.05 at least, so that turned ones have -0.05 at most. Upside down, a part of lungs 15 mm high has 0.
    "back_behind": Limits(
        "likeness to a chest with its back behind, over one that is turned",
        "",
        (-0.03, ANY),
        low="the slices look turned or flipped; look where the spine is, and write the image with its true directions",
    ),
    "head_above": Limits(
        "likeness to a chest with its head above, over one upside down",
        "",
        (-0.03, ANY),
        low="the slices look upside down; look at the scan from the front, and write it with its true directions",
    ),
    # Supine, on CT: 4.1 ± 1.2 l [Cressoni], 4.7 ± 1.2 l [Cheng]. Breathing out and pneumonia halve it, emphysema adds;
    # the severest, who matter most here, keep some tenths of a litre of air. Blobs found by mistake have millilitres.
    "lung_volume": Limits("lung volume", "l", (1.5, 10), (0.2, 14), f"little lung found; {LOOK}", f"too much; {LOOK}"),
    # Real: 0 to 10, the most where one lung has collapsed; with an empty slice in the middle of the lungs: 15 to 50.
    "lung_dropped": Limits(
        "lung that was found and left out again, as not joined to the rest or without air",
        "%",
        (0, 15),
        high=f"a part of the lungs may be lost; {LOOK}",
    ),
    # −820 HU breathed in, −950 in emphysema, −500 in severe pneumonia. Air alone and tissue alone are no lung.
    "lung_density": Limits(
        "mean of the lungs", "HU", (-930, -500), (-980, -150), f"nothing but air; {LOOK}", f"dense lungs; {LOOK}"
    ),
    # Lung lies in soft tissue, some 850 HU denser, 400 in severe pneumonia. What is found in noise is as dense as what
    # is around it.
    "lung_contrast": Limits(
        "median between and around the lungs, less that of the lungs",
        "HU",
        (400, ANY),
        (150, ANY),
        low=f"hardly denser than the lungs; {LOOK}",
    ),
    # The left lung has some 47 %. Under a tenth: collapsed, removed, drowned, or not recognised.
    "smaller_lung": Limits(
        "the smaller lung's share of the air-filled lung",
        "%",
        (10, 50),
        low="one lung may be missing; look at the scan",
    ),
    # Lungs end in a point at the top and in a narrow rim at the base: a large section there is a cut.
    "lung_base": Limits(
        "lung in the lowest slice, over its largest section",
        "%",
        (0, 5),
        high="the base may be cut off; give the whole chest",
    ),
    "lung_top": Limits(
        "lung in the highest slice, over its largest section",
        "%",
        (0, 5),
        high="the top may be cut off; give the whole chest",
    ),
    "lung_edge": Limits(
        "slices with lung within 5 mm of the edge of the image",
        "%",
        (0, 5),
        high="the field of view cuts the lungs; give a wider one",
    ),
    # Blood is near 40 HU, with contrast agent 150 to 400.
    "mediastinum": Limits(
        "median of the heart and great vessels",
        "HU",
        (0, 100),
        high="contrast agent; prefer a native scan of the same patient",
    ),
    # Bone ends near 2000 HU. A port or pacemaker has some ml, a wire in the sternum less than one.
    "metal": Limits("metal, above 2500 HU", "ml", (0, 1), high="streaks may cross the lungs; look at the scan"),
}
