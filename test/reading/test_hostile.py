"""Hostile and odd files: each ends in a CT or in one clear line; never in another error, a crash, a hang, much memory.

Every test here stands for something that was found, by hand or by the fuzz targets in test/fuzz.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
from helpers import ROOT
from fuzz import dicom as dicom_target
from fuzz import metaimage, nifti, nrrd
from fuzz.mutation import mutated
from fuzz.run import TARGETS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from helpers.dicom import hu_volume, write_series

from balaitous.cohort.scans import list_scans
from balaitous.container.grand_challenge import find_cases
from balaitous.ct import limits
from balaitous.ct.dicom import select_series
from balaitous.ct.fingerprint import content_sha256
from balaitous.ct.limits import in_time
from balaitous.ct.volume import read_ct
from balaitous.errors import InputError, explain, one_line

HU = hu_volume()
VOXELS = metaimage.VOXELS  # (3, 4, 5), int16
MUTATIONS = 30  # of each target in the test suite; the targets themselves run for as long as one likes
BOMB_BYTES = 64 * 2**20
PEAK_MIB = 16  # beyond what reading a good file takes


def refused(path: Path, reason: str) -> None:
    """Reading ends in one line that starts with the path and matches `reason`."""
    with pytest.raises(InputError, match=reason) as caught:
        read_ct(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


def meta_image(folder: Path, file="LOCAL", data=VOXELS, name="scan.mhd", **fields) -> Path:
    """A MetaImage header with other or more fields, and what follows it."""
    header = metaimage.HEADER.format(compressed="False", more="", file=file)
    for key, value in fields.items():
        line = f"{key} = {value}\n"
        header, known = re.subn(f"^{key} = .*\n", line, header, flags=re.MULTILINE)
        header = header if known else line + header
    (folder / name).write_bytes(header.encode() + data)
    return folder / name


def nrrd_image(folder: Path, more="", data=VOXELS, encoding="raw", **fields) -> Path:
    """A NRRD header with other fields, more lines, and what follows it."""
    header = nrrd.HEADER.format(encoding=encoding, more=f"{more}\n")
    for key, value in fields.items():
        header = re.sub(f"^{key}: .*$", f"{key}: {value}", header, flags=re.MULTILINE)
    (folder / "scan.nhdr").write_bytes(header.encode() + data)
    return folder / "scan.nhdr"


def nifti_image(folder: Path, name="scan.nii", **values) -> Path:
    """A NIfTI file with other values at bytes of its header, as ``at_108=("<f", 352.0)``."""
    content = bytearray(nifti.header("<") + VOXELS)
    for place, (kind, *numbers) in values.items():
        struct.pack_into(kind, content, int(place.removeprefix("at_")), *numbers)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder / name


def with_slices(folder: Path, names=("slice0.raw", "slice1.raw", "slice2.raw")) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes(VOXELS[number * 40 : (number + 1) * 40])


def bomb(wbits: int) -> bytes:
    """Zeros, deflated a thousandfold: as zlib (15), gzip (31) or without a frame (−15)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(BOMB_BYTES // 2**20)) + packer.flush()


# Fuzz targets


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.filterwarnings("ignore:Expected (im|ex)plicit VR", "ignore:VR lookup failed")
def test_a_fuzz_target_finds_nothing_in_its_first_mutations(target, tmp_path, monkeypatch):
    module = importlib.import_module(f"fuzz.{target}")
    monkeypatch.setattr("fuzz.reading.MAXIMUM_MIB", float("inf"))  # of a process that other tests share
    seeds = module.seeds()
    for number in range(MUTATIONS):
        module.check(mutated(number, seeds, module.TOKENS), tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_of_a_fuzz_target_are_read_but_for_those_in_methods_that_are_refused(target, tmp_path):
    module, read = importlib.import_module(f"fuzz.{target}"), 0
    path = {"nifti": "scan.nii", "dicom": ".", "archive": "series.zip", "sidecar": "scan.mha"}
    for seed in module.seeds():
        module.check(seed, tmp_path)
        try:
            read_ct(tmp_path / path.get(target, "scan.mhd" if target == "metaimage" else "scan.nhdr"))
            read += 1
        except InputError:
            pass
    assert read >= len(module.seeds()) - 2


def test_the_command_that_fuzzes_reports_what_it_did(tmp_path):
    command = [sys.executable, ROOT / "test/fuzz/run.py", "--plain", "--seconds", "2", "sidecar"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"sidecar: [\d,]+ inputs in 2 s, 0 findings\n", done.stdout)


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
@settings(max_examples=80, deadline=None)
def test_any_metaimage_header_gives_a_ct_or_one_line(tmp_path_factory, fields, file):
    folder = tmp_path_factory.mktemp("header")
    (folder / "voxels.raw").write_bytes(VOXELS)
    with suppress(InputError):
        assert read_ct(meta_image(folder, file, **fields)).hu.shape == (3, 4, 5)


@given(st.integers(40, 340), st.binary(min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_nifti_header_gives_a_ct_or_one_line(tmp_path_factory, place, content):
    path = tmp_path_factory.mktemp("header") / "scan.nii"
    whole = nifti.header("<") + VOXELS
    path.write_bytes(whole[:place] + content + whole[place + len(content) :])
    with suppress(InputError):
        assert read_ct(path).hu.ndim == 3


# Files that lie elsewhere


@pytest.mark.parametrize("name", ["../secret.raw", "{folder}/../secret.raw", "link.raw", "linked/secret.raw"])
@pytest.mark.parametrize("kind", ["mhd", "nhdr", "mhd list", "nhdr list", "mhd pattern", "nhdr pattern"])
def test_voxels_outside_the_headers_folder_are_refused(tmp_path, kind, name):
    folder = tmp_path / "scan"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(VOXELS)
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    (folder / "linked").symlink_to(tmp_path)
    name = name.format(folder=folder)
    if kind.endswith("pattern"):
        name = name.replace("secret", "s%d") + " 0 2 1"
        with_slices(tmp_path, ("s0.raw", "s1.raw", "s2.raw"))
        for number in range(3):
            (folder / f"link{number}.raw").symlink_to(tmp_path / f"s{number}.raw")
        name = name.replace("link.raw", "link%d.raw")
    elif kind.endswith("list"):
        name = f"LIST\n{name}\n{name}\n{name}"
    make = meta_image if kind.startswith("mhd") else nrrd_image
    path = make(folder, name if make is meta_image else f"data file: {name}", b"")
    refused(path, "expected files inside the scan's own folder, .* lies outside or links to there; copy the file")


@pytest.mark.parametrize(
    "names", ["slice%d.raw 0 2 1", "LIST\nslice0.raw\nslice1.raw\nslice2.raw", "sub/é%02d.raw 0 4 2"]
)
def test_voxels_in_files_of_the_headers_folder_are_read(tmp_path, names):
    with_slices(tmp_path)
    (tmp_path / "sub").mkdir()
    with_slices(tmp_path / "sub", ("é00.raw", "é02.raw", "é04.raw"))
    for path in (meta_image(tmp_path, names, b""), nrrd_image(tmp_path, f"data file: {names}", b"")):
        assert read_ct(path).hu.tobytes() == VOXELS
        assert content_sha256(path) != content_sha256(tmp_path / "slice0.raw")


@pytest.mark.parametrize(
    "names",
    [
        *("%n%n%s%s.raw 0 2 1", "%n%d.raw 0 2 1", "%0999999999d.raw 0 2 1", "slice%d.raw 0 99999999999 1"),
        *("slice%d.raw 0 999999999 1", "slice%d.raw 0 1 1", "slice%d.raw", "LIST 3", "LIST\nslice0.raw\nslice1.raw"),
    ],
)
def test_patterns_and_lists_that_do_not_name_a_file_a_slice_are_refused(tmp_path, names):
    with_slices(tmp_path)
    for path in (meta_image(tmp_path, names, b""), nrrd_image(tmp_path, f"data file: {names}", b"")):
        refused(path, "expected a pattern such as|expected a file a slice")
        assert len(content_sha256(path)) == 64


def test_a_slice_file_that_is_cut_short_is_refused(tmp_path):
    with_slices(tmp_path)
    (tmp_path / "slice1.raw").write_bytes(b"short")
    refused(meta_image(tmp_path, "slice%d.raw 0 2 1", b""), r"expected 40 bytes .*, slice1\.raw holds 5")


def test_standard_input_is_no_file_of_voxels(tmp_path):
    (tmp_path / "-").write_bytes(VOXELS)
    refused(nrrd_image(tmp_path, "data file: -", b""), "expected its voxels in -")


def test_the_pair_of_files_of_analyze_and_nifti_is_refused(tmp_path):
    (tmp_path / "scan.img").write_bytes(VOXELS)
    for magic in (b"ni1\0", bytes(4)):
        refused(nifti_image(tmp_path, at_344=("4s", magic)), r"expected NIfTI-1 in one file \(n\+1\)")
    refused(nifti_image(tmp_path, "scan.hdr"), r"expected \.mha, .* found '\.hdr'")


def test_a_dicom_file_that_links_out_of_its_folder_is_refused(tmp_path):
    file = write_series(tmp_path / "series", HU)[2]
    file.rename(tmp_path / "elsewhere.dcm")
    file.symlink_to(tmp_path / "elsewhere.dcm")
    refused(tmp_path / "series", f"{file.name} lies outside or links to there")


def test_a_scan_of_a_job_that_links_out_of_its_input_is_refused(tmp_path):
    folder = tmp_path / "input" / "images" / "ct"
    folder.mkdir(parents=True)
    (folder / "scan.mha").symlink_to(meta_image(tmp_path, name="elsewhere.mha"))
    with pytest.raises(InputError, match=r"scan\.mha lies outside or links to there"):
        find_cases(tmp_path / "input")


def test_links_that_lead_in_circles_do_not_keep_a_cohort_busy(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        meta_image(tmp_path / name, name=f"{name}.mha")
        for link in ("up", "up again", "down"):
            (tmp_path / name / link).symlink_to(
                tmp_path / ("b" if name == "a" else "a") if link == "down" else tmp_path
            )
    assert [scan.path.name for scan in list_scans([tmp_path])] == ["a.mha", "b.mha"]


# Files that are none


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nii", ".nii.gz", ".nrrd", ".nhdr", ".zip"])
def test_a_pipe_is_not_waited_for(tmp_path, ending):
    os.mkfifo(tmp_path / f"scan{ending}")
    refused(tmp_path / f"scan{ending}", "expected a file, found a device, a pipe or a link to nothing")
    with pytest.raises(OSError, match="is no file"):
        content_sha256(tmp_path / f"scan{ending}")


def test_a_pipe_in_a_dicom_folder_counts_as_no_dicom(tmp_path):
    files = write_series(tmp_path, HU, StudyInstanceUID="1.2")
    os.mkfifo(tmp_path / "pipe.dcm")
    assert list(select_series(tmp_path).files) == files
    assert [scan.path for scan in list_scans([tmp_path])] == [tmp_path]


def test_a_file_name_that_is_no_utf8_is_refused(tmp_path):
    path = meta_image(tmp_path).rename(tmp_path / os.fsdecode(b"sc\xff\xfean.mha"))
    with pytest.raises(InputError, match=r"expected a file name in UTF-8, found b'sc\\xff\\xfean\.mha'; rename it"):
        read_ct(path)


def test_folders_in_folders_without_end_are_refused(tmp_path):
    (tmp_path / "/".join("a" * 60)).mkdir(parents=True)
    refused(tmp_path, "expected at most 50 folders in each other")
    with pytest.raises(InputError, match="expected at most 50 folders in each other"):
        list_scans([tmp_path])


@pytest.mark.parametrize(
    "content", ["[" * 200_000, '{"age": "' + "9" * 2**21 + '"}', "\\", '{"age": "\\ud800"}', '"\x1b[2J"']
)
def test_a_side_car_that_is_none_is_refused(tmp_path, content):
    path = meta_image(tmp_path)
    (tmp_path / "scan.json").write_text(content)
    refused(path, r"side-car scan\.json")


def test_messages_are_one_printable_line_of_limited_length():
    assert one_line("a\r\nERROR: b\x1b[2J\udcff") == "a ERROR: b\\x1b[2J\\udcff"
    assert len(one_line("x" * 10**6 + " do this")) < 1300
    assert one_line("x" * 10**6 + " do this").endswith("x do this")
    assert "\x1b" not in explain(InputError("series \x1b[31m"))


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
        ({"at_0": ("<i", 540)}, "expected a NIfTI-1 header"),
    ],
)
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_a_nifti_header_that_cannot_be_true_is_refused_without_noise(tmp_path, values, reason, name, capfd):
    refused(nifti_image(tmp_path, name, **values), reason)
    assert capfd.readouterr() == ("", "")


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
        refused(tmp_path / name, "expected a (NIfTI-1|NRRD) header")


# DICOM


def one_changed(folder: Path, change) -> Path:
    """A series of which one file is changed: `change` gets its dataset, or its bytes and gives others."""
    file = write_series(folder, hu_volume((4, 16, 16)), shuffle=False)[1]
    if (content := change(file.read_bytes())) is not None:
        file.write_bytes(content)
    return folder


def with_before(content: bytes, tag: bytes, more: bytes) -> bytes:
    """Bytes of a slice with more before the element of a tag."""
    place = content.index(tag)
    return content[:place] + more + content[place:]


def sequence(tag: tuple[int, int], body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<HH2sHI", *tag, b"SQ", 0, len(body) if length is None else length) + body


OPEN = 0xFFFFFFFF
ITEM, OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0), struct.pack("<HHI", 0xFFFE, 0xE000, OPEN)
ITEM_END, SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
SAMPLES_PER_PIXEL, PIXEL_DATA = b"\x28\0\2\0US", b"\xe0\x7f\x10\0O"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: sequence((0x21, 0x1001), ITEM * 20_000 + SEQUENCE_END, OPEN), "20,000 sequence items"),
        (lambda: sequence((0x21, 0x1001), ITEM * 100_000), "100,000 sequence items"),
        (lambda: sequence((0x21, 0x1001), OPEN_ITEM * 1, OPEN) * 3000, "damaged header"),
        (
            lambda: sequence((0x21, 0x1001), (OPEN_ITEM + sequence((0x21, 0x1001), b"", OPEN)) * 20_000),
            "20,000 sequence items",
        ),
        (
            lambda: struct.pack("<HH2sHI", 0x21, 0x1001, b"OB", 0, 0xF0000000),
            "slices are missing",
        ),
    ],
    ids=["items", "items of told length", "nested", "nested of told length", "4 GB"],
)
def test_sequences_that_would_end_a_reader_are_refused(tmp_path, make, reason):
    refused(one_changed(tmp_path / "series", lambda content: with_before(content, SAMPLES_PER_PIXEL, make())), reason)


def test_a_length_that_lies_between_the_tags_of_an_image_reaches_no_other_reader(tmp_path):
    lying = sequence(
        (0x51, 0x1001), ITEM[:4] + struct.pack("<I", 12) + struct.pack("<HH2sHI", 9, 1, b"OB", 0, 0x7FFFFFF0)
    )
    folder = one_changed(tmp_path / "series", lambda content: with_before(content, PIXEL_DATA, lying))
    assert read_ct(folder).hu.shape == (4, 16, 16)


def test_deflated_dicom_is_refused_before_it_is_inflated(tmp_path):
    def deflated(content: bytes) -> bytes:
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        out = io.BytesIO()
        header.save_as(out)
        return out.getvalue() + bomb(-15)

    refused(one_changed(tmp_path / "series", deflated), "damaged header .deflated; write it in another transfer syntax")


def test_frames_colours_and_odd_pixels_are_refused(tmp_path):
    write_series(tmp_path / "frames", HU, NumberOfFrames=100_000)
    write_series(tmp_path / "colours", HU, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    for name in ("frames", "colours"):
        refused(tmp_path / name, "found 6 × CT image with several frames or colours")
    write_series(tmp_path / "bits", HU, BitsAllocated=65535)
    refused(tmp_path / "bits", "expected 7 × 8 pixels of 8, 16 or 32 bits")
    write_series(tmp_path / "huge", HU, Rows=18_000, Columns=18_000)
    refused(tmp_path / "huge", "expected 1,944,000,000 pixels as the headers declare|expected .* bytes of pixels")


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
def test_numbers_that_are_none_are_refused(tmp_path, tag):
    size = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "RescaleSlope": 1}[tag]
    write_series(tmp_path / "series", HU, **{tag: ["nan"] * size})
    refused(tmp_path / "series", "damaged header .not all numbers in")


def jpeg(marker: int, rows: int, columns: int) -> bytes:
    return b"\xff\xd8\xff" + struct.pack(">BHBHHB3B", marker, 11, 16, rows, columns, 1, 1, 0x11, 0) + bytes(64)


def jpeg2000(rows: int, columns: int, components=1, tile=None, depth=15) -> bytes:
    tile = tile or (columns, rows)
    size = struct.pack(">H8IH", 0, columns, rows, 0, 0, *tile, 0, 0, components) + bytes((depth, 1, 1)) * components
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + bytes(64)


@pytest.mark.parametrize(
    ("syntax", "image", "reason"),
    [
        (JPEGLosslessSV1, jpeg(0xC3, 60_000, 60_000), "found 60000 × 60000 with 1 colours"),
        (JPEGLSLossless, jpeg(0xF7, 60_000, 60_000), "found 60000 × 60000 with 1 colours"),
        (JPEG2000Lossless, jpeg2000(20_000, 20_000), "found 20000 × 20000 with 1 colours"),
        (JPEG2000Lossless, jpeg2000(16, 16, components=16_000), "with 16000 colours"),
        (JPEG2000Lossless, jpeg2000(16, 2**32 - 1, tile=(1, 1)), "a JPEG 2000 image of 68719476720 tiles"),
        (JPEG2000Lossless, b"\0\0\0\x0cjP  ", "expected JPEG, JPEG-LS or JPEG 2000"),
        (JPEGLosslessSV1, b"\xff\xd8\xff\xe0\0\0", "is damaged"),
        (JPEGLosslessSV1, b"\xff\xd8\xff" + jpeg(0xC3, 7, 8)[2:], "no frame at the beginning"),
        (JPEG2000Lossless, jpeg2000(7, 8, depth=31), "found 7 × 8 with 1 colours of 32 bits"),
        (RLELossless, b"\2\0\0\0" + bytes(60), "is damaged"),
        (RLELossless, bytes(64), "is damaged"),  # no segments: GDCM divided by their number
        (RLELossless, b"\2\0\0\0" + bytes(4000), "expected at most 2 × 512 bytes of run-length encoded pixels"),
    ],
)
def test_a_compressed_image_that_tells_another_size_is_refused(tmp_path, syntax, image, reason):
    def encapsulated(content: bytes) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([image])
        return dicom_target.written(dataset)

    refused(one_changed(tmp_path / "series", encapsulated), reason)


@pytest.mark.parametrize("precision", [17, 18, 255])
def test_a_jpeg_with_more_bits_than_a_pixel_has_is_refused(tmp_path, precision):
    first, _, last = dicom_target.slices()
    middle = bytearray(next(seed for seed in dicom_target.seeds() if b"\xff\xd8\xff\xc3" in seed))
    middle[middle.index(b"\xff\xd8\xff\xc3") + 6] = precision
    for name, content in zip("abc", (first, middle, last), strict=True):
        (tmp_path / f"{name}.dcm").write_bytes(content)
    refused(tmp_path, f"at most 16 bits in b.dcm, found 16 × 16 with 1 colours of {precision} bits")


# Memory and time


def peak_mib_of_reading(paths: list[Path]) -> list[float]:
    """What reading each path adds to the peak memory of one process, which may have 4 GiB at most."""
    code = (
        "import resource, sys\n"
        "from balaitous.ct.volume import read_ct\n"
        "from balaitous.errors import InputError\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**32, 2**32))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "for path in sys.argv[1:]:\n"
        "    before = peak()\n"
        "    try: read_ct(path)\n"
        "    except InputError: pass\n"
        "    print(peak() - before)\n"
    )
    command = [sys.executable, "-c", code, *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def make_bomb(folder: Path, kind: str) -> Path:
    if kind == "mha":
        data = bomb(15)
        return meta_image(folder, "LOCAL", data, CompressedData="True", CompressedDataSize=len(data))
    if kind == "nrrd":
        return nrrd_image(folder, data=bomb(31), encoding="gzip")
    if kind == "nii.gz":
        path = nifti_image(folder, "scan.nii.gz")
        path.write_bytes(path.read_bytes() + bomb(31))
        return path
    if kind == "side-car":
        (folder / "scan.json").write_bytes(b" " * BOMB_BYTES)
        return meta_image(folder)
    path = folder / "series.zip"
    method = {"zip bzip2": zipfile.ZIP_BZIP2, "zip lzma": zipfile.ZIP_LZMA, "zip": zipfile.ZIP_DEFLATED}[kind]
    with zipfile.ZipFile(path, "w", method) as packed:
        packed.writestr("a.dcm", bytes(BOMB_BYTES))
    return path


def test_bombs_take_little_memory(tmp_path):
    kinds = ["mha", "nrrd", "nii.gz", "side-car", "zip", "zip bzip2", "zip lzma"]
    for kind in kinds:
        (tmp_path / kind).mkdir()
    paths = [meta_image(tmp_path), *(make_bomb(tmp_path / kind, kind) for kind in kinds)]
    assert max(peak_mib_of_reading(paths)[1:]) < PEAK_MIB


@pytest.mark.parametrize("kind", ["mha", "nrrd", "nii.gz"])
def test_voxels_that_inflate_to_more_than_the_header_declares_are_refused_at_once(tmp_path, kind, monkeypatch):
    read = []
    monkeypatch.setattr(
        "balaitous.ct.integrity.in_time", lambda chunks: (read.append(len(each)) or each for each in chunks)
    )
    refused(make_bomb(tmp_path, kind), "bytes of voxels as its header declares, found more")


def test_a_zip_that_declares_more_than_the_limit_or_too_many_files_is_refused(tmp_path, monkeypatch):
    path = make_bomb(tmp_path, "zip")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "0.03")
    refused(path, r"expected at most 0\.03 GiB in the zip, it declares 0\.1 GiB; .*raise BALAITOUS_MAX_GIB")
    monkeypatch.delenv("BALAITOUS_MAX_GIB")
    monkeypatch.setattr("balaitous.ct.archive.MAXIMUM_LISTING_BYTES", 20)
    refused(path, "its list of members takes more than 20 bytes")


@pytest.mark.parametrize("name", ["a/" * 60 + "x.dcm", "a/" * 900 + "x.dcm"])
def test_a_zip_of_folders_in_folders_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "deep.zip", "w") as packed:
        packed.writestr(name, b"")
    refused(tmp_path / "deep.zip", "at most 50 folders deep")


def test_limits_can_be_raised_and_lowered(tmp_path, monkeypatch):
    path = meta_image(tmp_path)
    monkeypatch.setenv("BALAITOUS_MAX_GIB", str(59 * 4 / 2**30))
    refused(path, "expected at most 59 voxels, its header declares 5 × 4 × 3; .* raise BALAITOUS_MAX_GIB")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "inf")
    assert read_ct(path).hu.shape == (3, 4, 5)
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "8 GiB")
    with pytest.raises(ValueError, match=r"BALAITOUS_MAX_GIB must be a number above 0\. Got '8 GiB' instead"):
        read_ct(path)


def test_a_pass_over_the_files_ends_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setenv("BALAITOUS_MAX_SECONDS", "5")
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(limits.time, "monotonic", lambda: next(clock))
    steps = in_time("abcdef")
    assert [next(steps), next(steps)] == ["a", "b"]
    with pytest.raises(InputError, match=r"expected to go through it within 5 s, .* or raise BALAITOUS_MAX_SECONDS"):
        next(steps)


@pytest.mark.parametrize("kind", ["series", "zip", "nii.gz"])
def test_every_kind_of_scan_is_read_against_the_clock(tmp_path, monkeypatch, kind):
    if kind == "nii.gz":
        path = nifti_image(tmp_path, "scan.nii.gz")
    else:
        path = tmp_path / "series"
        files = write_series(path, HU)
        if kind == "zip":
            path = tmp_path / "series.zip"
            with zipfile.ZipFile(path, "w") as packed:
                for file in files:
                    packed.write(file, file.name)
    monkeypatch.setenv("BALAITOUS_MAX_SECONDS", "1e-9")
    refused(path, "raise BALAITOUS_MAX_SECONDS")


def test_json_of_a_side_car_keeps_working(tmp_path):
    path = meta_image(tmp_path)
    (tmp_path / "scan.json").write_text(json.dumps({"sex": "F"}))
    assert read_ct(path).patient.sex == 0.0
