"""The anatomy behind the phantom: sizes of one chest, and how an axial slice of it is painted.

Coordinates are millimetres: x to the patient's left, y to the back, z up from the deepest recess of the lungs. Heights
are mostly given as t, the share of the lungs' height. Shapes are signed distances, painted from outside to inside as a
body is built; every number that is not drawn is one that made the slices look like those of real chests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balaitous.ct.lungs import LEFT, RIGHT

AIR, FAT, STOMACH, MUSCLE, LIVER, MARROW, BONE = -1000, -95, 31, 50, 58, 230, 650  # HU, each its own
SIDES = ((RIGHT, -1), (LEFT, 1))  # label, sign of x in LPS

Image = NDArray[np.floating]  # (Y, X)


@dataclass(frozen=True)
class Anatomy:
    """Sizes of one chest in mm (x to the left, y to the back, z up from the deepest recess) and densities in HU."""

    cage_x: float  # half-widths of the rib cage, inside
    cage_y: float
    height: float  # from the deepest recess to the apex
    fat: float
    muscle: float
    heart: float  # half-width
    dome_right: float  # tops of the diaphragm, as shares of the height
    dome_left: float
    mediastinum: float  # scale of its vessels and of the trachea
    rib_pitch: float
    breast: float
    arms: bool
    gas: NDArray[np.float32]  # (n, 5): centre x, y, z and half-widths in plane and along z of gas in stomach and bowel
    food: float  # depth in HU of the gas pockets in what the stomach holds
    table_gap: float
    shift: tuple[float, float]
    tilt: float  # rotation in plane, radians
    lung_hu: float
    blood_hu: float
    noise_hu: float

    @classmethod
    def draw(cls, rng: np.random.Generator, sex: float) -> Anatomy:
        """A random chest, on average smaller for a woman (sex 0) than for a man (sex 1)."""
        size = 0.94 + 0.06 * sex
        cage_x, cage_y = rng.uniform(122, 148) * size, rng.uniform(82, 106) * size
        height = rng.uniform(225, 290) * size
        bubbles = int(rng.integers(1, 6))
        gas = np.stack(
            [
                rng.uniform(0.0, 0.75, bubbles) * cage_x,
                rng.uniform(-0.8, 0.1, bubbles) * cage_y,
                rng.uniform(-0.15, 0.24, bubbles) * height,
                rng.uniform(5, 28, bubbles),
                rng.uniform(6, 25, bubbles),
            ],
            axis=1,
        )
        return cls(
            cage_x=cage_x,
            cage_y=cage_y,
            height=height,
            fat=rng.gamma(3, 5) + 5,
            muscle=rng.uniform(12, 20),
            heart=rng.uniform(48, 66) * size,
            dome_right=rng.uniform(0.26, 0.46),
            dome_left=rng.uniform(0.24, 0.40),
            mediastinum=rng.uniform(0.85, 1.2),
            rib_pitch=rng.uniform(21, 27),
            breast=rng.uniform(10, 38) * (1 - sex),
            arms=rng.random() < 0.2,
            gas=gas.astype(np.float32),
            food=rng.choice([0.0, rng.uniform(100, 600)]),
            table_gap=rng.uniform(-3, 12),
            shift=(rng.uniform(-18, 18), rng.uniform(-18, 18)),
            tilt=rng.normal(0, 0.05),
            lung_hu=rng.uniform(-905, -780),
            blood_hu=rng.choice([40.0, rng.uniform(120, 280)], p=[0.65, 0.35]),
            noise_hu=rng.uniform(6, 30),
        )


# --- shapes: signed distances in mm, negative inside ------------------------------------------------------------------


def ellipse(x: Image, y: Image, cx: float, cy: float, rx: float, ry: float, power: float = 2.0) -> Image:
    """Distance along the ray from the centre to the superellipse ``|x/rx|^p + |y/ry|^p = 1``."""
    dx, dy = x - cx, y - cy
    if power == 2:  # by far the most; roots and powers are what a slice's time goes into
        radius = np.sqrt(dx * dx * (1 / rx**2) + dy * dy * (1 / ry**2))
    else:
        radius = (np.abs(dx / rx) ** power + np.abs(dy / ry) ** power) ** (1 / power)
    return np.sqrt(dx * dx + dy * dy) * (1 - 1 / np.maximum(radius, 0.02))


def capsule(x: Image, y: Image, start: tuple[float, float], end: tuple[float, float], radius: float) -> Image:
    """Distance to the segment from `start` to `end`, less `radius`."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * ax + (y - start[1]) * ay) / (ax**2 + ay**2), 0, 1)
    dx, dy = x - start[0] - along * ax, y - start[1] - along * ay
    return np.sqrt(dx * dx + dy * dy) - radius


def ball(distance: float, radius: float) -> float:
    """Radius of a ball's cross-section `distance` from its centre; 0 outside."""
    return math.sqrt(max(radius**2 - distance**2, 0))


# --- one axial slice --------------------------------------------------------------------------------------------------


def paint_slice(a: Anatomy, x: Image, y: Image, z: float) -> tuple[Image, NDArray[np.uint8]]:
    """HU (Y, X) and lung labels (Y, X) of the axial slice at height `z`; `x`, `y` (Y, X) in mm, float32."""
    t = z / a.height
    narrowing = math.sqrt(1 - 0.80 * np.clip((t - 0.3) / 0.7, 0, 1.1) ** 2.2)
    cage_x = a.cage_x * narrowing * (1 - 0.05 * max(0.3 - t, 0))
    cage_y = a.cage_y * (0.35 + 0.65 * narrowing)
    centre = a.cage_y - cage_y  # the back is straight, the front slopes
    cage = ellipse(x, y, 0, centre, cage_x, cage_y)
    back = centre + cage_y
    front = centre - cage_y

    hu = np.full(x.shape, AIR, dtype=np.float32)
    _paint_body(hu, a, x, y, t, cage, cage_x, centre, cage_y)
    _paint_ribs(hu, a, x, y, z, cage, cage_x, front, back)

    diaphragm = _diaphragm(a, x, y, centre)
    below = diaphragm - z  # mm below the diaphragm's surface
    _paint_abdomen(hu, a, x, y, z, cage < -3, below, back)

    organs, envelope = _mediastinum(a, x, y, t, front, back)
    apex = a.height - 30 * np.square((np.abs(x) - 0.3 * a.cage_x) / 45) - 12 * np.square((y - back + 50) / 45)
    lung = (cage < -2) & (below < -2.5) & (z < apex) & (envelope > 0)
    hu[(cage < -1) & (below < 0) & ~lung] = FAT if t < 0.8 else 20
    lungs = np.zeros(x.shape, dtype=np.uint8)
    for label, side in SIDES:
        lungs[lung & (x * side > 0)] = label
    # Lung is denser where it lies lowest (supine: the back).
    hu[lung] = a.lung_hu + 45 * ((y - front) / (back - front) - 0.4)[lung]
    for distance, organ_hu in organs:
        hu[(distance < 0) & (below < 4)] = organ_hu
        lungs[(distance < 0) & (organ_hu == AIR)] = 0
    _paint_spine(hu, x, y, z, back)
    return hu, lungs


def _paint_body(
    hu: Image, a: Anatomy, x: Image, y: Image, t: float, cage: Image, cage_x: float, centre: float, cage_y: float
) -> None:
    """Table, arms, fat and muscle of the chest wall, shoulders, and soft tissue in the cage."""
    shoulders = float(np.clip((t - 0.72) / 0.33, 0, 1.2))
    wall = a.muscle + a.fat
    half_x = cage_x + wall + shoulders * (a.cage_x * 1.45 - cage_x)
    half_y = cage_y + 0.8 * wall
    back = centre + half_y
    table = np.abs(y - back - a.table_gap - 18 + np.square(x) / 900)
    hu[table < 15] = -940
    hu[np.abs(table - 15) < 1.5] = -150
    if a.arms:
        for _, side in SIDES:
            arm = ellipse(x, y, side * (half_x + 38), centre + 15, 36, 42)
            hu[arm < 0], hu[arm < -8], hu[arm < -22], hu[arm < -27] = FAT, MUSCLE, BONE, MARROW
    body = ellipse(x, y, 0, centre, half_x, half_y, 2.3)
    for _, side in SIDES:
        if a.breast > 0 and 0.25 < t < 0.75:
            size = a.breast * ball((t - 0.5) / 0.25, 1.0)
            body = np.minimum(body, ellipse(x, y, side * cage_x * 0.6, centre - half_y * 0.75, 30 + size, 15 + size))
    muscle = np.minimum(cage - a.muscle * (1 + 0.6 * np.maximum(y - centre, 0) / cage_y), body + 0.5 * a.fat + 3)
    shoulder = ellipse(x, y, 0, centre, half_x - a.fat, half_y - a.fat * 0.7, 2.3)
    hu[body < 0], hu[(body < 0) & (body > -2)] = FAT, -20
    hu[(body < -0.4 * a.fat) & ((muscle < 0) | ((shoulder < 0) & (t > 0.72)))] = MUSCLE
    fat_planes = (cage > 6) & (cage < 9) & (cage_x > 0.6 * a.cage_x)  # between the muscles' layers
    hu[fat_planes & (body < -3)] = -40
    hu[cage < 0] = FAT if t < 0.95 else MUSCLE


def _paint_ribs(
    hu: Image, a: Anatomy, x: Image, y: Image, z: float, cage: Image, cage_x: float, front: float, back: float
) -> None:
    """Ribs, sternum, clavicles, scapulae, heads of the humeri."""
    t = z / a.height
    # Ribs run down from back to front, so a slice cuts each one obliquely.
    phase = (z + 0.55 * (back - y)) / a.rib_pitch
    along = (phase - np.round(phase)) * a.rib_pitch
    rib = (np.hypot(along / 6.5, (cage - 5.5) / 4.5) - 1) * 4.5
    cartilage = (y < front + 25) & (np.abs(x) < 0.65 * cage_x)
    if 0.02 < t < 1.02:
        _paint_bone(hu, np.where(cartilage, 9, rib))
        hu[(rib < 0) & cartilage] = 110
    if 0.3 < t < 0.95:
        _paint_bone(hu, ellipse(x, y, 0, front - 8, 19, 6))
    for _, side in SIDES:
        if 0.55 < t < 1:
            blade = capsule(x, y, (side * (cage_x + 19), back - 62), (side * (cage_x - 34), back + 12), 3.0)
            _paint_bone(hu, np.where(cage > 13, blade, 9), cortex_mm=1.5)
        if t > 0.9:
            _paint_bone(hu, ellipse(x, y, side * a.cage_x * 1.25, back - 70, 23, 23), cortex_mm=3)
        if 0.92 < t < 1.05:
            _paint_bone(hu, capsule(x, y, (side * 25, front - 6), (side * 95, front + 25), 6))


def _paint_spine(hu: Image, x: Image, y: Image, z: float, back: float) -> None:
    """Vertebra or disc, canal, processes, and the muscles beside them; only where there is tissue already."""
    tissue = hu > -300
    spine_y = back - 20
    disc = abs((z / 26) % 1 - 0.5) < 0.09

    def within(distance: Image) -> Image:
        return np.where(tissue, distance, 9)

    hu[within(capsule(x, y, (-26, spine_y + 24), (26, spine_y + 24), 17)) < 0] = MUSCLE
    _paint_bone(hu, within(capsule(x, y, (0, spine_y + 26), (0, spine_y + 42), 4)))
    if not disc:
        _paint_bone(hu, within(capsule(x, y, (-30, spine_y + 22), (30, spine_y + 22), 5)))
    hu[within(ellipse(x, y, 0, spine_y + 21, 9, 7)) < 0] = 30  # the canal
    _paint_bone(hu, within(ellipse(x, y, 0, spine_y, 20, 16)), 90 if disc else MARROW - 40)


def _paint_bone(hu: Image, distance: Image, marrow_hu: float = MARROW, cortex_mm: float = 2.0) -> None:
    hu[distance < 0] = BONE
    hu[distance < -cortex_mm] = marrow_hu


def _diaphragm(a: Anatomy, x: Image, y: Image, centre: float) -> Image:
    """Height of the diaphragm in mm: two domes, and a saddle between them that carries the heart."""
    anterior = np.clip((centre + 0.55 * a.cage_y - y) / a.cage_y, 0, 1.4)
    recess = a.height * 0.15 * anterior  # the recess is deepest at the back
    top = np.zeros(x.shape, dtype=np.float32)
    for dome, cx, cy, rx, ry in (
        (a.dome_right, -0.50, -0.05, 0.53, 0.95),
        (a.dome_left, 0.50, -0.05, 0.53, 0.93),
        (min(a.dome_left, a.dome_right) - 0.02, 0.0, -0.28, 0.8, 0.72),
    ):
        u, v = (x / a.cage_x - cx) / rx, ((y - centre) / a.cage_y - cy) / ry
        share = np.sqrt(np.maximum(1 - u * u - v * v, 0))
        top = np.maximum(top, dome * a.height * share + (1 - share) * recess)
    return np.maximum(top, recess)


def _paint_abdomen(
    hu: Image, a: Anatomy, x: Image, y: Image, z: float, inside: NDArray[np.bool_], below: Image, back: float
) -> None:
    """Liver, spleen, stomach with a fluid level, bowel gas: what lies under the diaphragm, close to the lungs."""
    region = inside & (below > -3)
    hu[region] = MUSCLE  # the diaphragm itself
    deep = inside & (below > 1)
    hu[deep] = FAT
    liver = deep & (x < 0.25 * a.cage_x - 0.25 * (y - back + a.cage_y))
    hu[liver] = LIVER
    hu[deep & (ellipse(x, y, 0.62 * a.cage_x, back - 0.5 * a.cage_y, 36, 48) < 0)] = LIVER - 8  # spleen
    stomach = deep & ~liver & (ellipse(x, y, 0.42 * a.cage_x, back - 1.15 * a.cage_y, 48, 45) < 0)
    hu[stomach] = STOMACH
    for cx, cy, cz, radius, half_z in a.gas:
        reach = radius * ball((z - cz) / half_z, 1.0)
        if reach > 0:
            hole = ellipse(x, y, float(cx), float(cy), reach * 1.4, reach)
            hu[deep & (below > 4) & (hole < 2.5)] = MUSCLE
            hu[deep & (below > 4) & (hole < 0)] = AIR


def _mediastinum(
    a: Anatomy, x: Image, y: Image, t: float, front: float, back: float
) -> tuple[list[tuple[Image, float]], Image]:
    """Organs between the lungs as (distance, HU), in painting order, and the distance to the fat around them."""
    m = a.mediastinum
    spine_y = back - 20
    aorta_y = spine_y - 26
    middle = 0.5 * (front + aorta_y)
    blood, organs = a.blood_hu, []

    def add(distance: Image, organ_hu: float) -> None:
        organs.append((distance, organ_hu))

    if (heart := ball((t - 0.30) / 0.22, 1.0)) > 0:
        angle = 0.55  # the long axis points to the left and to the front
        u = math.cos(angle) * (x - 20) - math.sin(angle) * (y - middle)
        v = math.sin(angle) * (x - 20) + math.cos(angle) * (y - middle)
        add(ellipse(u, v, 0, 0, a.heart * 1.12 * heart, a.heart * 0.86 * heart), min(blood, 150) - 5)
    if t < 0.74:
        add(ellipse(x, y, 22, aorta_y, 12 * m, 12 * m), blood)  # descending aorta
    if 0.42 < t < 0.74:
        add(ellipse(x, y, -16, middle - 6, 16 * m, 16 * m), blood)  # ascending aorta
    if 0.70 < t < 0.78:
        add(capsule(x, y, (-14, middle - 2), (20, aorta_y), 12 * m), blood)  # arch
    if 0.45 < t < 0.95:
        add(ellipse(x, y, -34 * m + 14 * max(t - 0.6, 0), middle + 2, 9 * m, 9 * m), blood)  # superior vena cava
    if 0.52 < t < 0.62:
        add(capsule(x, y, (14, middle - 10), (34, middle + 16), 13 * m), blood)  # pulmonary trunk and left artery
        add(capsule(x, y, (8, middle + 6), (-36, middle + 14), 9 * m), blood)  # right pulmonary artery
    for _, side in SIDES:
        if (hilum := ball((t - 0.52) / 0.14, 1.0)) > 0:
            add(capsule(x, y, (side * 20, aorta_y - 22), (side * 42, aorta_y - 14), 10 * hilum * m), blood)
    if t > 0.74:  # vessels of the head and arms, thyroid, and soft tissue of the inlet
        for vx, vy in ((-18, 2), (4, -6), (22, 4)):
            add(ellipse(x, y, vx * (1 + 0.8 * max(t - 0.85, 0) / 0.15), aorta_y - 28 + vy, 7 * m, 7 * m), blood)
    add(ellipse(x, y, 5, aorta_y - 8, 8, 6), 30)  # oesophagus

    carina = 0.62
    trachea_y = aorta_y - 20
    if t > carina:
        tubes = [(0.0, 9.0 * m, 9.0 * m)]
    elif t > 0.45:
        down = (carina - t) / (carina - 0.45)
        tubes = [(side * 40 * down, (9 + 4 * (1 - down)) * m, (8 - 2.5 * down) * m) for _, side in SIDES]
    else:
        tubes = [(side * 44.0, 3.5 * m, 3.5 * m) for _, side in SIDES if t > 0.33]
    for cx, rx, ry in tubes:
        tube = ellipse(x, y, cx, trachea_y + 20 * max(carina - t, 0), rx, ry)
        add(tube - 2, 20)
        add(tube, AIR)

    spine = ellipse(x, y, 0, spine_y + 3, 24, 20)
    anterior = capsule(x, y, (0, front - 5), (0, middle), 2.5 if t < 0.72 else 14)
    core = capsule(x, y, (0, middle + 8), (0, spine_y), 12 if t < 0.78 else 24)
    solid = [d for d, organ_hu in organs if organ_hu != AIR]
    # A smooth union: the fat fills the corners between the organs.
    softness = 6.0
    fields = [*(d - 2.5 for d in solid), spine, anterior, core]
    total = sum(np.exp(np.minimum(-d / softness, 30)) for d in fields)
    return organs, -softness * np.log(total + 1e-12)
