"""NIfTI as others read it: which spacing, which axes, which values; and what is refused with what to do.

The affines that are expected are worked out by hand, as nibabel does: the sform where sform_code > 0, else the qform.
"""

from __future__ import annotations

import gzip
import math
import struct

import numpy as np
import pytest

from balaitous.ct.quality import check_scan
from balaitous.ct.volume import read_ct, resample
from helpers.headers import VOXELS, nifti_2_image, nifti_image
from helpers.images import image_of, refused, written

STORED = np.frombuffer(VOXELS, "<i2").reshape(3, 4, 5)
RAS_IN_LPS = [-1, 0, 0, 0, -1, 0, 0, 0, 1]
# Bytes of a NIfTI-1 header
DATATYPE, PIXDIM, SCALING, UNITS, CODES, QFORM, SFORM = (
    *("at_70", "at_76", "at_112", "at_123", "at_252", "at_256", "at_280"),
)


def sform(matrix, origin=(0, 0, 0)) -> tuple:
    """Rows of an affine in RAS, as `nifti_image` takes them."""
    return ("12f", *np.column_stack([matrix, origin]).astype(float).ravel())


def turned_about_x(degrees) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def grid_in_ras(path) -> np.ndarray:
    """The affine (4, 4) from stored voxels to RAS, that the CT's grid comes to."""
    ct = read_ct(path)
    matrix = np.reshape(ct.grid.direction, (3, 3)) * np.where(ct.stored.reversed, -1, 1)
    matrix = (matrix * ct.grid.spacing_mm)[:, np.argsort(ct.stored.axes)]
    assert ct.stored.origin_mm is not None
    return np.diag([-1, -1, 1]) @ np.column_stack([matrix, ct.stored.origin_mm])


def header_check(path):
    return next(check for check in check_scan(read_ct(path)) if check.name == "header")


# Voxels


@pytest.mark.parametrize("write", [nifti_image, nifti_2_image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("name", "packed"), [("scan.nii", False), ("scan.nii", True), ("scan.nii.gz", False)])
def test_both_versions_and_byte_orders_are_read_gzipped_or_not_whatever_the_ending(
    tmp_path, write, order, name, packed, capfd
):
    path = write(tmp_path, name, order, STORED.astype(f"{order}i2").tobytes(), packed)
    ct = read_ct(path)
    np.testing.assert_array_equal(ct.hu, STORED[:, ::-1, ::-1])  # RAS, seen in LPS
    assert (ct.hu.dtype, ct.name, ct.doubts) == (np.int16, "scan", ())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("datatype", "kind"), [(8, "i4"), (16, "f4"), (64, "f8"), (1024, "i8")], ids=lambda each: str(each)
)
def test_every_type_of_number_that_holds_hounsfield_units_is_read(tmp_path, order, datatype, kind):
    data = STORED.astype(order + kind)
    path = nifti_image(tmp_path, order=order, data=data.tobytes(), at_70=("hh", datatype, 8 * data.itemsize))
    np.testing.assert_array_equal(read_ct(path).hu, STORED[:, ::-1, ::-1])


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("datatype", "kind"), [(16, "f4"), (64, "f8")])
@pytest.mark.parametrize("scaling", [(0, 0), (1, 0), (1, -5), (2, 0)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_voxel_that_is_no_number_is_refused_and_not_read_as_water(
    tmp_path, name, order, datatype, kind, scaling, value
):
    data = STORED.astype(order + kind)
    data[1, 2, 3] = value
    fields = {DATATYPE: ("hh", datatype, 8 * data.itemsize), SCALING: ("ff", *scaling)}
    refused(
        nifti_image(tmp_path, name, order, data.tobytes(), **fields), "found NaN or infinity; write the image again"
    )


@pytest.mark.parametrize(
    ("slope", "intercept", "values"),
    [
        (1, 0, STORED),
        (0, 0, STORED),
        (0, -1024, STORED),  # a slope of 0 means that nothing is to be rescaled, whatever the intercept says
        (0, math.nan, STORED),
        (2, 0.5, STORED * 2 + 0.5),
        (1, -24, STORED - 24.0),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_stored_numbers_are_rescaled_as_the_header_says(tmp_path, order, slope, intercept, values):
    fields = {SCALING: ("ff", slope, intercept)}
    ct = read_ct(nifti_image(tmp_path, order=order, data=STORED.astype(f"{order}i2").tobytes(), **fields))
    np.testing.assert_allclose(ct.hu, np.maximum(values, -1024)[:, ::-1, ::-1])
    assert ct.hu.dtype == (np.int16 if values is STORED else np.float32)


@pytest.mark.parametrize(
    ("scaling", "reason"),
    [
        ((math.nan, 0), "expected numbers for scl_slope and scl_inter, found nan and 0; set them to 1 and 0"),
        ((1, math.nan), "found 1 and nan"),
        ((math.inf, 0), "found inf and 0"),
        ((1, -math.inf), "found 1 and -inf"),
        ((3e38, 0), "found NaN or infinity"),
        ((1e30, 0), "at most 32767"),
        ((1, 1e30), "found nothing but"),
        ((1, 1024), "subtract 1024"),
        ((1e-3, 0), "looks like an image that was normalised"),
    ],
)
def test_a_rescaling_that_makes_no_hounsfield_units_is_refused_without_noise(tmp_path, scaling, reason, capfd):
    refused(nifti_image(tmp_path, **{SCALING: ("ff", *scaling)}), reason)
    assert capfd.readouterr() == ("", "")


# Geometry


AFFINE = np.array([[0.0, -2, 0, 10], [3, 0, 0, 20], [0, 0, 4, 30]])  # first axis to the front, second to the right
TO_THE_FRONT = {
    PIXDIM: ("4f", 1, 3, 2, 4),
    QFORM: ("6f", 0, 0, math.sqrt(0.5), 10, 20, 30),
    SFORM: sform(AFFINE[:, :3], AFFINE[:, 3]),
}


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (1, 2), (1, 4), (0, 1), (0, 3), (1, 0), (2, -1)])
def test_the_sform_and_the_qform_of_one_grid_say_the_same(tmp_path, codes):
    path = nifti_image(tmp_path, **TO_THE_FRONT | {CODES: ("hh", *codes)})
    np.testing.assert_allclose(grid_in_ras(path), AFFINE, atol=1e-6)
    assert read_ct(path).doubts == ()


@pytest.mark.parametrize("qform_code", [0, 1, 2])
@pytest.mark.parametrize("sform_code", [1, 2, 4])
def test_the_sform_is_taken_where_it_counts_and_what_says_otherwise_is_told(tmp_path, qform_code, sform_code):
    fields = TO_THE_FRONT | {PIXDIM: ("4f", 1, 1, 1, 1), QFORM: ("6f", 0, 0, 0, 1, 2, 3)}
    path = nifti_image(tmp_path, **fields | {CODES: ("hh", qform_code, sform_code)})
    np.testing.assert_allclose(grid_in_ras(path), AFFINE, atol=1e-6)
    check = header_check(path)
    assert (check.status, check.value) == ("warn", 1 + (qform_code > 0))
    assert "pixdim says 1 × 1 × 1 mm, the sform 3 × 2 × 4 mm, which is taken" in check.message
    assert ("the axes of its qform point elsewhere" in check.message) == (qform_code > 0)
    assert check.message.endswith("; correct the header")


def test_one_spacing_that_differs_is_taken_from_the_sform_and_the_others_stay_exact(tmp_path):
    pixdim = (0.7421875, 0.7421875, 1.0)
    matrix = np.diag([0.742, 0.742, 5.0])
    path = nifti_image(tmp_path, **{PIXDIM: ("4f", 1, *pixdim), CODES: ("hh", 0, 1), SFORM: sform(matrix)})
    assert read_ct(path).grid.spacing_mm == (0.7421875, 0.7421875, 5.0)


@pytest.mark.parametrize("pixdim", [(0, 0, 0), (-3, -2, -4), (0, 2, 4)])
def test_a_pixdim_without_meaning_does_no_harm_where_the_sform_counts(tmp_path, pixdim):
    path = nifti_image(tmp_path, **TO_THE_FRONT | {PIXDIM: ("4f", 1, *pixdim), CODES: ("hh", 0, 1)})
    assert read_ct(path).grid.spacing_mm == (2, 3, 4)
    assert bool(read_ct(path).doubts) == (0 in pixdim)


@pytest.mark.parametrize("codes", [(1, 0), (0, 0)])
@pytest.mark.parametrize("pixdim", [(0, 2, 4), (-3, 2, 4), (math.nan, 2, 4), (math.inf, 2, 4)])
def test_a_pixdim_without_meaning_is_refused_where_nothing_else_tells_the_spacing(tmp_path, codes, pixdim):
    path = nifti_image(tmp_path, **{PIXDIM: ("4f", 1, *pixdim), CODES: ("hh", *codes)})
    refused(path, "expected voxel sizes in mm" if math.isfinite(pixdim[0]) else "found NaN or infinity")


def test_a_header_without_orientation_is_read_as_itk_does_with_a_warning(tmp_path):
    path = nifti_image(tmp_path, **{PIXDIM: ("4f", 1, 3, 2, 4), CODES: ("hh", 0, 0)})
    ct = read_ct(path)
    np.testing.assert_array_equal(ct.hu, STORED)
    assert ct.grid.spacing_mm == (3, 2, 4)
    assert header_check(path).status == "warn"
    assert "qform_code and sform_code are 0, so it tells no orientation" in header_check(path).message


@pytest.mark.parametrize("qfac", [1, 0, -1])
def test_the_third_axis_of_a_qform_goes_where_qfac_says(tmp_path, qfac):
    path = nifti_image(tmp_path, **{PIXDIM: ("4f", qfac, 3, 2, 4), CODES: ("hh", 1, 0)})
    np.testing.assert_allclose(grid_in_ras(path)[:, :3], np.diag([3, 2, -4 if qfac < 0 else 4]), atol=1e-6)


def test_a_half_turn_in_a_qform_is_exact(tmp_path):
    path = nifti_image(tmp_path, **{QFORM: ("6f", 0, 0, 1, 0, 0, 0), CODES: ("hh", 1, 0)})
    assert np.array_equal(grid_in_ras(path)[:, :3], np.diag([-1, -1, 1]))


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path):
    path = nifti_image(tmp_path, **{QFORM: ("3f", 1, 1, 1), CODES: ("hh", 1, 0)})
    refused(path, "expected a rotation in the qform, found the quaternion 1, 1, 1")


@pytest.mark.parametrize(
    ("units", "factor"), [(2, 1), (10, 1), (0, 1), (1, 1e3), (9, 1e3), (3, 1e-3), (11, 1e-3)], ids=str
)
@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (0, 0)])
def test_metres_and_microns_are_turned_to_mm(tmp_path, units, factor, codes):
    size_mm, place_mm = np.array([3, 2, 4]) / factor, np.array([10, 20, 30]) / factor
    fields = {
        PIXDIM: ("4f", 1, *size_mm),
        QFORM: ("6f", 0, 0, 0, *place_mm),
        SFORM: sform(np.diag(size_mm), place_mm),
        **{UNITS: ("b", units), CODES: ("hh", *codes)},
    }
    ct = read_ct(nifti_image(tmp_path, **fields))
    assert ct.grid.spacing_mm == pytest.approx((3, 2, 4))
    if any(codes):
        assert ct.stored.origin_mm == pytest.approx((-10, -20, 30))


def test_mm_that_are_called_metres_or_microns_are_refused(tmp_path):
    refused(nifti_image(tmp_path, **{UNITS: ("b", 3)}), r"expected voxel sizes in mm, found \(0\.001, 0\.001, 0\.001\)")
    refused(
        nifti_image(tmp_path, **{UNITS: ("b", 1)}), r"expected voxel sizes in mm, found \(1000\.0, 1000\.0, 1000\.0\)"
    )


@pytest.mark.parametrize("write", [nifti_image, nifti_2_image])
def test_a_sform_that_was_rounded_to_three_digits_is_read_with_the_nearest_rotation(tmp_path, write):
    exact = turned_about_x(7)
    size = np.array([0.742, 0.742, 2.5])
    rounded = np.round(exact * size, 3)
    if write is nifti_image:
        fields = {PIXDIM: ("4f", 1, *size), CODES: ("hh", 0, 1), SFORM: sform(rounded)}
    else:
        fields = {"at_104": ("4d", 1, *size), "at_344": ("ii", 0, 1), "at_400": ("12d", *sform(rounded)[1:])}
    ct = read_ct(write(tmp_path, **fields))
    direction = np.reshape(ct.grid.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(grid_in_ras(tmp_path / "scan.nii")[:, :3], exact * size, atol=2e-3)
    assert ct.grid.spacing_mm == pytest.approx(tuple(size), abs=1e-7)
    assert ct.doubts == ()


@pytest.mark.parametrize(("degrees", "told"), [(0.05, []), (0.19, []), (0.3, ["0.3°"]), (0.5, ["0.5°"])])
def test_a_small_shear_is_straightened_and_told_unless_rounding_makes_it(tmp_path, degrees, told):
    matrix = np.eye(3)
    matrix[0, 1] = math.tan(math.radians(degrees))
    ct = read_ct(nifti_image(tmp_path, **{CODES: ("hh", 0, 1), SFORM: sform(matrix)}))
    direction = np.reshape(ct.grid.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-9)
    assert [f"its sform has a shear of {each}, which is straightened" in ct.doubts[0] for each in told] == [True] * len(
        ct.doubts
    )


@pytest.mark.parametrize("degrees", [1, 5, 17])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_larger_shear_is_refused_with_its_angle_and_what_to_do(tmp_path, name, degrees, capfd):
    matrix = np.eye(3)
    matrix[0, 1] = math.tan(math.radians(degrees))
    path = nifti_image(tmp_path, name, **{CODES: ("hh", 0, 1), SFORM: sform(matrix)})
    refused(path, rf"at right angles, found a shear of {degrees}° \(a gantry tilt, .*; resample to a rectangular grid")
    assert capfd.readouterr() == ("", "")


def test_the_smallest_numbers_there_are_make_no_noise(tmp_path, capfd):
    matrix = np.diag([70.0, 80, 90])
    matrix[0, 1] = 1e-44
    resample(read_ct(nifti_image(tmp_path, **{CODES: ("hh", 0, 1), SFORM: sform(matrix)})))
    assert capfd.readouterr() == ("", "")


def test_a_sform_of_nothing_is_refused(tmp_path):
    path = nifti_image(tmp_path, **{CODES: ("hh", 0, 1), SFORM: ("12f", *[0] * 12)})
    refused(path, r"expected voxel sizes in mm, found \(0\.0, 0\.0, 0\.0\)")


# Headers


def test_a_file_that_itk_wrote_is_read_on_the_same_grid(tmp_path):
    ct = read_ct(written(image_of(), tmp_path / "scan.nii.gz"))
    np.testing.assert_array_equal(ct.hu, read_ct(written(image_of(), tmp_path / "scan.mha")).hu)
    assert ct.grid.apart_mm(read_ct(tmp_path / "scan.mha").grid) < 1e-4
    assert ct.doubts == ()


@pytest.mark.parametrize("dim", [(4, 5, 4, 3, 1), (7, 5, 4, 3, 1, 1, 1, 1)])
def test_axes_of_one_voxel_behind_the_third_are_none(tmp_path, dim):
    assert read_ct(nifti_image(tmp_path, at_40=(f"{len(dim)}h", *dim))).hu.shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("dim", "reason"),
    [
        ((0, 5, 4, 3), r"found dim\[0\] = 0"),
        ((8, 5, 4, 3), r"found dim\[0\] = 8"),
        ((2, 5, 12), r"found a 2-D image \(5 × 12\)"),
        ((4, 5, 4, 1, 3), r"found a 4-D image \(5 × 4 × 1 × 3\)"),
        ((3, -5, -4, 3), "found one slice"),
    ],
)
def test_dimensions_that_are_no_volume_are_refused(tmp_path, dim, reason):
    refused(nifti_image(tmp_path, at_40=(f"{len(dim)}h", *dim)), reason)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"at_4": ("8s", b"ni2\0\r\n\x1a\n")}, "expected NIfTI in one file"),
        ({"at_4": ("8s", b"n+2\0\n\n\x1a\n")}, "expected a NIfTI-1 or NIfTI-2 header"),  # as text mode spoils it
        ({"at_168": ("q", 540)}, "expected NIfTI voxels from byte 544 on, found vox_offset 540"),
        ({"at_168": ("q", 2**62)}, "expected .* bytes of voxels as its header declares"),
        ({"at_16": ("8q", 3, 2**40, 2**40, 2**40, 1, 1, 1, 1)}, "expected at most .* voxels"),
        ({"at_12": ("hh", 128, 24)}, "found NIfTI datatype 128 with 24 bits"),
        ({"at_104": ("4d", 1, math.nan, 1, 1)}, "found NaN or infinity"),
        ({"at_400": ("d", 1e300)}, "expected voxel sizes in mm"),
        ({"at_400": ("d", 1e-310)}, "expected voxel sizes in mm"),
        ({"at_400": ("12d", *[1.7e308] * 12), "at_500": ("i", 1)}, "expected voxel sizes in mm"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_nifti_2_header_that_cannot_be_true_is_refused_without_noise(tmp_path, values, reason, packed, capfd):
    refused(nifti_2_image(tmp_path, packed=packed, **values), reason)
    assert capfd.readouterr() == ("", "")


def test_gzip_in_several_members_is_read_in_one_pass(tmp_path):
    whole = nifti_image(tmp_path).read_bytes()
    (tmp_path / "parts.nii.gz").write_bytes(gzip.compress(whole[:400]) + gzip.compress(whole[400:]))
    np.testing.assert_array_equal(read_ct(tmp_path / "parts.nii.gz").hu, STORED[:, ::-1, ::-1])


def test_a_damaged_gzip_is_refused_whatever_its_ending(tmp_path, capfd):
    content = bytearray(nifti_image(tmp_path, "scan.nii.gz").read_bytes())
    content[-6] ^= 1  # its checksum
    for name in ("scan.nii.gz", "scan.nii"):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f"{name} is damaged")
    assert capfd.readouterr() == ("", "")


def test_voxels_that_start_at_an_odd_byte_are_read(tmp_path):
    path = nifti_image(tmp_path, data=b"\0" + VOXELS, at_108=("f", 353))
    np.testing.assert_array_equal(read_ct(path).hu, STORED[:, ::-1, ::-1])
    assert struct.unpack_from("<f", path.read_bytes(), 108) == (353,)
