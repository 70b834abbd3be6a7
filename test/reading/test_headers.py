"""Headers of MetaImage, NRRD and NIfTI: what cannot be true, or means mischief, is refused before it is believed."""

from __future__ import annotations

import gzip
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balaitous.ct.volume import read_ct
from balaitous.errors import InputError
from balaitous.reading.fingerprint import content_sha256
from fuzz import nifti
from helpers.headers import VOXELS, meta_image, nifti_image, nrrd_image, with_slices
from helpers.images import image_of, refused, written


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("DimSize", "10000 10000 10000", "expected at most 2,147,483,648 voxels, .* 10000 × 10000 × 10000"),
        ("DimSize", "-8 7 6", "expected at most 2,147,483,648 voxels"),
        ("DimSize", "1000 1000 1000", "expected 2,000,000,000 bytes of voxels as its header declares"),
        ("DimSize", "8 7 0", "found one slice"),
        ("DimSize", None, "expected a MetaImage header with DimSize"),
        ("ElementSpacing", "0 1 1", r"expected voxel sizes in mm, found \(0\.0"),
        ("ElementSpacing", "-1 1 1", r"expected voxel sizes in mm, found \(-1\.0"),
        ("ElementSpacing", "nan 1 1", "expected voxel sizes in mm"),
        ("ElementSpacing", "700 700 700", r"expected voxel sizes in mm, found \(700\.0"),
        ("TransformMatrix", "1 0.4 0 0 1 0 0 0 1", "expected axes at right angles"),
        ("TransformMatrix", "0 0 0 0 0 0 0 0 0", "expected axes at right angles"),
        ("ElementType", "MET_NOTHING", "expected a readable image"),
        ("ElementDataFile", "gone.raw", r"expected its voxels in gone\.raw"),
    ],
)
@pytest.mark.parametrize("compressed", [True, False])
def test_a_header_that_cannot_be_true_is_refused(tmp_path, key, value, reason, compressed, capfd):
    path = written(image_of(), tmp_path / "scan.mha", compressed)
    line = b"" if value is None else f"{key} = {value}\n".encode()
    path.write_bytes(re.sub(f"{key} = .*\n".encode(), line, path.read_bytes(), count=1))
    refused(path, reason)
    assert capfd.readouterr() == ("", "")


NUMBERS = st.sampled_from(
    ["0", "1", "-1", "nan", "inf", "1e99", "3", "5", "2147483648", "99999999999999999999", "x", ""]
)


@given(
    st.dictionaries(
        st.sampled_from(["NDims", "DimSize", "ElementSpacing", "Offset", "HeaderSize", "ElementNumberOfChannels"]),
        st.lists(NUMBERS, min_size=1, max_size=4).map(" ".join),
        max_size=3,
    ),
    st.sampled_from(
        ["LOCAL", "voxels.raw", "LIST\nvoxels.raw", "LIST 2", "%d", "voxels%d.raw 0 2 1", "../a", "/", "-", "\0"]
    ),
)
@example({"ElementSpacing": "nan 1 1"}, "LOCAL")
@settings(max_examples=80)
def test_any_metaimage_header_gives_a_ct_or_one_line(tmp_path_factory, fields, file):
    folder = tmp_path_factory.mktemp("header")
    (folder / "voxels.raw").write_bytes(VOXELS)
    with suppress(InputError):
        assert read_ct(meta_image(folder, file, **fields)).hu.shape == (3, 4, 5)


@given(st.integers(40, 340), st.binary(min_size=1, max_size=8))
@settings(max_examples=60)
def test_any_nifti_header_gives_a_ct_or_one_line(tmp_path_factory, place, content):
    path = tmp_path_factory.mktemp("header") / "scan.nii"
    whole = nifti.header("<") + VOXELS
    path.write_bytes(whole[:place] + content + whole[place + len(content) :])
    with suppress(InputError):
        assert read_ct(path).hu.ndim == 3


@pytest.mark.parametrize("name", ["voxels.raw", "sub/é.raw"])
def test_voxels_in_a_file_of_the_headers_folder_are_read(tmp_path, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_bytes(VOXELS)
    for path in (meta_image(tmp_path, name, b""), nrrd_image(tmp_path, f"data file: {name}", b"")):
        assert read_ct(path).hu.tobytes() == VOXELS
        assert content_sha256(path) != content_sha256(tmp_path / name)


@pytest.mark.parametrize(
    "names",
    [
        *("LIST", "LIST 3", "list", "LIST\nslice0.raw\nslice1.raw\nslice2.raw", "LIST\n../secret.raw"),
        *(
            "slice%d.raw 0 2 1",
            "slice%03d.raw 1 40 1",
            "../s%d.raw 0 2 1",
            "%n%n%s%s.raw 0 2 1",
            "%0999999999d.raw 0 2 1",
        ),
    ],
)
def test_a_file_a_slice_is_refused_with_what_to_do(tmp_path, names):
    with_slices(tmp_path)
    for path in (meta_image(tmp_path, names, b""), nrrd_image(tmp_path, f"data file: {names}", b"")):
        refused(path, r"expected the voxels in one file, found a list of files \('.*'\); convert the scan to one \.mha")
        assert len(content_sha256(path)) == 64


def test_a_file_of_voxels_that_is_cut_short_is_refused(tmp_path):
    (tmp_path / "voxels.raw").write_bytes(b"short")
    refused(meta_image(tmp_path, "voxels.raw", b""), r"expected 120 bytes .*, voxels\.raw holds 5")


def test_standard_input_is_no_file_of_voxels(tmp_path):
    (tmp_path / "-").write_bytes(VOXELS)
    refused(nrrd_image(tmp_path, "data file: -", b""), "expected its voxels in -")


def test_the_pair_of_files_of_analyze_and_nifti_is_refused(tmp_path):
    (tmp_path / "scan.img").write_bytes(VOXELS)
    for magic in (b"ni1\0", bytes(4)):
        refused(nifti_image(tmp_path, at_344=("4s", magic)), r"expected NIfTI in one file \(n\+1 or n\+2\)")
    refused(nifti_image(tmp_path, "scan.hdr"), r"expected \.mha, .* found '\.hdr'")


# Headers that say what cannot be


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"BinaryData": "False", "DimSize": "1200 1200 1200"}, "expected voxels in binary form"),
        ({"HeaderSize": "5"}, "expected voxels right after the header"),
        ({"HeaderSize": "-1"}, "expected voxels right after the header"),
        ({"HeaderSize": "1e5"}, "expected a number of bytes in HeaderSize"),
        ({"NDims": "11"}, "expected a 3-D volume, found NDims = 11"),
        ({"NDims": "1000"}, "expected a 3-D volume, found NDims = 1000"),
        ({"ElementNumberOfChannels": "100000000"}, "expected one number a voxel"),
        ({"CompressedData": "True", "CompressedDataSize": "999999999999"}, "expected 999,999,999,999 compressed bytes"),
        ({"CompressedData": "True", "CompressedDataSize": "9" * 5000}, "compressed bytes as its header declares"),
        ({"k" * 499: "ElementDataFile = /etc/passwd"}, "expected a MetaImage header"),
        ({"Comment": "x" * 40_000}, "expected a MetaImage header"),
        ({"a\rElementDataFile": "/etc/passwd"}, "expected a MetaImage header"),
        ({"ElementDataFile : /etc/passwd": "x"}, "expected a MetaImage header"),
        ({"ElementSpacing": "500 700 900"}, "expected voxel sizes in mm"),  # 30 m³ to be resampled from 120 bytes
    ],
)
def test_a_metaimage_header_that_means_mischief_is_refused_without_noise(tmp_path, fields, reason, capfd):
    refused(meta_image(tmp_path, **fields), reason)
    assert capfd.readouterr() == ("", "")


def test_a_key_that_a_header_has_twice_is_refused(tmp_path):
    path = meta_image(tmp_path)
    path.write_bytes(b"DimSize = 1200 1200 1200\n" + path.read_bytes())
    refused(path, "found DimSize twice")
    refused(nrrd_image(tmp_path, "encoding: gzip"), "found encoding twice")
    refused(nrrd_image(tmp_path, "data file: voxels.raw\ndatafile: /etc/passwd"), "found datafile twice")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        *(({"at_108": ("<f", value)}, "found vox_offset") for value in (float("nan"), float("inf"), -1e6, 0.0, 348.0)),
        ({"at_72": ("<h", 1), "at_42": ("<3h", 1200, 1200, 1200)}, "found NIfTI datatype 4 with 1 bits"),
        ({"at_70": ("<hh", 128, 24)}, "found NIfTI datatype 128 with 24 bits"),
        ({"at_42": ("<3h", 1200, 1200, 1200)}, "expected 3,456,000,352 bytes of voxels as its header declares"),
        ({"at_84": ("<f", float("nan"))}, "found NaN or infinity"),
        ({"at_256": ("<f", float("nan"))}, "found NaN or infinity"),
        ({"at_280": ("<f", float("inf"))}, "found NaN or infinity"),
        ({"at_0": ("<i", 540)}, "expected a NIfTI-1 or NIfTI-2 header"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_nifti_header_that_cannot_be_true_is_refused_without_noise(tmp_path, values, reason, name, capfd):
    refused(nifti_image(tmp_path, name, **values), reason)
    assert capfd.readouterr() == ("", "")


# Headers that say what SimpleITK does not look at


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"ElementToIntensityFunctionSlope": "2"}, "found ElementToIntensityFunctionSlope = 2; apply it"),
        ({"ElementToIntensityFunctionOffset": "-1024"}, "found ElementToIntensityFunctionOffset = -1024"),
        ({"ElementToIntensityFunctionSlope": "nan"}, "found ElementToIntensityFunctionSlope = nan"),
        ({"DistanceUnits": "um"}, "expected distances in mm, found DistanceUnits 'um'; write the file again in mm"),
        ({"DistanceUnits": "cm"}, "found DistanceUnits 'cm'"),
        ({"BinaryData": "0True"}, "expected voxels in binary form"),
        ({"DimSize": "5 4"}, "expected 3 numbers in DimSize, found '5 4'; write the file again"),
        ({"ElementSpacing": "1 1 x"}, "expected 3 numbers in ElementSpacing, found '1 1 x'"),
        ({"ElementSpacing": "1 1 1e999"}, "expected 3 numbers in ElementSpacing"),
        ({"ElementDataFile": "voxels.raw/"}, "expected its voxels in voxels.raw/ as the header says"),
        ({"TransformMatrix": "1 0 0"}, "expected 9 numbers in TransformMatrix"),
        ({"Position": "1 2 3"}, "expected NDims before Position in a MetaImage header, found it after"),
    ],
)
def test_a_metaimage_header_that_is_read_in_two_ways_is_refused_without_noise(tmp_path, fields, reason, capfd):
    (tmp_path / "voxels.raw").write_bytes(VOXELS)
    refused(meta_image(tmp_path, **fields), reason)
    assert capfd.readouterr() == ("", "")
    plain = {"ElementToIntensityFunctionSlope": "1.0", "ElementToIntensityFunctionOffset": "0", "DistanceUnits": "mm"}
    assert read_ct(meta_image(tmp_path, **plain)).hu.tobytes() == VOXELS


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ('space units: "cm" "cm" "cm"', "expected distances in mm, found space units 'cm'"),
        ('space units: "mm" "mm" "m"', "found space units 'm'"),
    ],
)
def test_a_nrrd_header_in_other_units_than_mm_is_refused(tmp_path, lines, reason):
    refused(nrrd_image(tmp_path, f"{lines}\ndata file: voxels.raw", b""), reason)


def nrrd_of(folder, *lines) -> Path:
    """A bare NRRD of `VOXELS` with some lines more."""
    plain = ("NRRD0005", "type: short", "dimension: 3", "sizes: 5 4 3", "encoding: raw", "endian: little")
    (folder / "scan.nrrd").write_bytes("\n".join([*plain, *lines, "", ""]).encode() + VOXELS)
    return folder / "scan.nrrd"


@pytest.mark.parametrize(
    "lines",
    [
        ("spacings: 2 3 NaN",),
        ("space: LPS", "space directions: (2,0,0) (0,3,0) none"),
        ("space: LPS", "space directions: (2,0,0) (0,3,0) (nan,nan,nan)"),
    ],
)
def test_a_nrrd_axis_without_a_voxel_size_is_not_taken_for_1_mm(tmp_path, lines):
    refused(nrrd_of(tmp_path, *lines), "expected a voxel size along each axis, found none of one")


@pytest.mark.parametrize(
    ("lines", "doubts"),
    [
        ((), ["no voxel size: 1 mm", "no orientation"]),
        (("spacings: 2 3 4",), ["no orientation"]),
        (("space dimension: 3", "space directions: (2,0,0) (0,3,0) (0,0,4)"), ["no orientation"]),
        (("space: scanner-xyz", "space directions: (2,0,0) (0,3,0) (0,0,4)"), ["no orientation"]),
        (("space: RAS", "space directions: (2,0,0) (0,3,0) (0,0,4)"), []),
        (("space: left-posterior-superior", "space directions: (2,0,0) (0,3,0) (0,0,4)"), []),
    ],
)
def test_what_a_nrrd_header_leaves_open_is_told(tmp_path, lines, doubts):
    found = read_ct(nrrd_of(tmp_path, *lines)).doubts
    assert len(found) == len(doubts)
    assert all(doubt in each for doubt, each in zip(doubts, found, strict=True))


def test_a_metaimage_header_without_voxel_sizes_is_told(tmp_path):
    path = meta_image(tmp_path)
    assert read_ct(path).doubts == ()
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing", b"ElementSize"))  # which stands for it, in MetaIO
    assert read_ct(path).doubts == ()
    path.write_bytes(path.read_bytes().replace(b"ElementSize = 1 1 1\n", b""))
    assert read_ct(path).doubts == ("its header tells no voxel size: 1 mm along each axis is taken",)


@pytest.mark.parametrize("encoding", ["ascii", "text", "hex", "HEX", "bzip2", "bz2", "zrl", ""])
def test_encodings_that_no_ct_has_are_refused_before_anything_is_allocated(tmp_path, encoding):
    path = nrrd_image(tmp_path, encoding=encoding, sizes="1200 1200 1200")
    refused(path, "expected NRRD with encoding raw or gzip")


@pytest.mark.parametrize("more", ["byte skip: 1", "line skip: 1", "byte skip: -1"])
def test_skipping_in_compressed_voxels_does_not_hide_their_size(tmp_path, more):
    path = nrrd_image(tmp_path, more, gzip.compress(VOXELS), encoding="GZIP", sizes="1200 1200 1200")
    refused(path, "found lines or bytes to skip")


def test_voxels_at_the_end_of_a_file_are_read(tmp_path):
    (tmp_path / "voxels.raw").write_bytes(b"some header" + VOXELS)
    assert read_ct(nrrd_image(tmp_path, "byte skip: -1\ndata file: voxels.raw", b"")).hu.tobytes() == VOXELS
    assert read_ct(meta_image(tmp_path, "voxels.raw", b"", HeaderSize="-1")).hu.tobytes() == VOXELS


def test_content_of_another_format_is_not_read_by_its_reader(tmp_path):
    path = meta_image(tmp_path, name="scan.mha")
    for name in ("scan.nii", "scan.nrrd"):
        (tmp_path / name).write_bytes(path.read_bytes())
        refused(tmp_path / name, "expected a (NIfTI-1 or NIfTI-2|NRRD) header")
