"""Pictures: every format, mode and defect; grey from black to white, and one clear line where there is none."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, PngImagePlugin

from balaitous.errors import InputError, one_line
from balaitous.reading.pictures import FORMATS, PICTURE_ENDINGS, picture_name, read_picture
from fuzz import pictures as target

RNG = np.random.default_rng(0)
SHAPE = (20, 30)  # Y, X
GREY = RNG.integers(0, 256, SHAPE, np.uint8)
RGB = RNG.integers(0, 256, (*SHAPE, 3), np.uint8)
DEEP = RNG.integers(100, 4000, SHAPE).astype(np.uint16)
STILL = np.add.outer(np.arange(20), np.arange(30)).astype(np.uint8) * 4  # smooth, which JPEG keeps
ORIENTATIONS = range(1, 9)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def saved(path: Path, array, mode: str | None = None, **options) -> Path:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def refused(path: Path, reason: str) -> None:
    """Reading ends in one line that starts with the path and matches `reason`, and nothing is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=reason) as caught:
            read_picture(path)
    assert str(caught.value).startswith(one_line(str(path)))
    assert str(caught.value).isprintable()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(path: Path, width: int, height: int, bits: int, colours: int, pixels: bytes, *more: bytes) -> Path:
    """A PNG by hand: `pixels` are rows, each with a byte for its filter."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(pixels, 9)), chunk(b"IEND", b"")]
    path.write_bytes(PNG_MAGIC + b"".join(parts))
    return path


def rows_of(array: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in array)


# --- 8 bit ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff", ".PNG"])
def test_8_bit_grey_is_divided_by_255(tmp_path, ending):
    picture = read_picture(saved(tmp_path / f"film{ending}", GREY))
    assert picture.grey.dtype == np.float32
    assert np.array_equal(picture.grey, GREY.astype(np.float32) / np.float32(255))
    assert np.array_equal(picture.values, GREY)
    assert (picture.name, picture.bits, picture.colour, picture.converted) == ("film", 8, 0.0, ())
    assert picture.path == str(tmp_path / f"film{ending}")
    assert picture.spacing_mm is None


@pytest.mark.parametrize("ending", [".jpg", ".jpeg"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_what_pillow_makes_of_it(tmp_path, ending, progressive):
    path = saved(tmp_path / f"film{ending}", STILL, progressive=progressive, quality=95)
    picture = read_picture(path)
    assert np.array_equal(picture.values, np.asarray(Image.open(path)))
    assert np.abs(picture.grey - STILL / 255).max() < 0.02


@pytest.mark.parametrize(
    ("mode", "ending", "options"),
    [
        *((mode, ".png", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *((mode, ".jpg", {}) for mode in ("L", "RGB")),
        *((mode, ".tif", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        *(("RGB", ".tif", {"compression": each}) for each in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ("L", ".tif", {"compression": "tiff_lzw"}),
        ("1", ".tif", {"compression": "packbits"}),
    ],
)
def test_8_bit_grey_is_the_luma_that_pillow_makes_in_every_mode(tmp_path, mode, ending, options):
    path = saved(tmp_path / f"picture{ending}", RGB, mode, **options)
    picture = read_picture(path)
    with Image.open(path) as image:
        assert image.mode == mode
        assert np.array_equal(picture.grey * 255, np.asarray(image.convert("L")))
    assert picture.bits == (1 if mode == "1" else 8)
    assert picture.values.ndim == (2 if mode in ("1", "L", "LA") else 3)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_goes_from_black_to_white(tmp_path, bits):
    levels = RNG.integers(0, 2**bits, (20, 32), np.uint8)
    packed = np.packbits(np.unpackbits(levels[..., None], axis=-1)[..., -bits:].reshape(20, -1), axis=-1)
    picture = read_picture(png_of(tmp_path / "few.png", 32, 20, bits, 0, rows_of(packed)))
    np.testing.assert_allclose(picture.grey, levels / (2**bits - 1), atol=1e-6)
    assert picture.bits == bits


def test_alpha_lies_over_black(tmp_path):
    alpha = np.zeros(SHAPE, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 255, 128
    for name, pixels in (("grey.png", np.dstack([GREY, alpha])), ("colour.png", np.dstack([RGB, alpha]))):
        picture = read_picture(saved(tmp_path / name, pixels))
        colours = pixels[..., :-1].squeeze().astype(float)
        weight = (alpha / 255) if colours.ndim == 2 else (alpha / 255)[..., None]
        assert np.abs(picture.values - colours * weight).max() <= 1
        assert "transparent parts over black" in picture.converted
        assert (picture.grey[:, 20:] == 0).all()


def test_a_palette_with_transparent_colours_lies_over_black(tmp_path):
    palette = Image.fromarray(np.indices(SHAPE)[1].astype(np.uint8) % 4, "P")
    palette.putpalette([255, 255, 255, 200, 0, 0, 0, 200, 0, 10, 20, 30])
    picture = read_picture(saved(tmp_path / "p.png", palette, transparency=bytes([0, 255, 255, 255])))
    assert (picture.values[:, ::4] == 0).all()
    assert (picture.values[:, 1::4] == (200, 0, 0)).all()
    assert picture.converted == ("palette to RGB", "transparent parts over black", "RGB to luma")


def test_a_grey_level_that_counts_as_transparent_keeps_its_grey(tmp_path):
    picture = read_picture(saved(tmp_path / "key.png", GREY, transparency=7))
    assert np.array_equal(picture.values, GREY)
    assert picture.converted == ("one colour is declared transparent: ignored",)


def test_colour_is_the_share_of_pixels_whose_channels_differ(tmp_path):
    pixels = np.full((*SHAPE, 3), 100, np.uint8)
    pixels[:5, :, 0] += 17  # a quarter of the rows
    pixels[5:10, :, 0] += 16
    assert read_picture(saved(tmp_path / "a.png", pixels)).colour == 0.25
    assert read_picture(saved(tmp_path / "b.png", pixels, "L")).colour == 0


# --- more than 8 bit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_16_bit_is_spread_by_its_own_percentiles(tmp_path, ending):
    deep = DEEP.copy()
    deep[0, 0] = 65535  # a burnt-in letter
    picture = read_picture(saved(tmp_path / f"deep{ending}", deep))
    low, high = np.percentile(deep, (0.1, 99.9))
    np.testing.assert_allclose(picture.grey, np.clip((deep - low) / (high - low), 0, 1), atol=1e-6)
    assert picture.values.dtype == np.uint16
    assert np.array_equal(picture.values, deep)
    assert picture.bits == 16
    assert picture.converted == (f"16 bit: 0.1…99.9 percentiles ({low:g}…{high:g}) to 0…1",)


def test_a_ramp_of_16_bit_stays_a_ramp(tmp_path):
    """Pillow's convert("L") makes 99.6 % of it white."""
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    grey = read_picture(saved(tmp_path / "ramp.png", ramp)).grey
    assert grey.mean() == pytest.approx(0.5, abs=0.01)
    assert (np.diff(grey.ravel()) >= 0).all()


@pytest.mark.parametrize(
    "array",
    [
        RNG.integers(-1000, 2000, SHAPE).astype(np.int32),
        RNG.integers(0, 2**31, SHAPE).astype(np.int32),
        RNG.normal(0, 1, SHAPE).astype(np.float32),
        (RNG.normal(0, 1, SHAPE) * 1e38).astype(np.float32),
    ],
)
def test_32_bit_tiff_is_spread_by_its_own_percentiles(tmp_path, array):
    picture = read_picture(saved(tmp_path / "deep.tif", array))
    low, high = np.percentile(array.astype(float), (0.1, 99.9))
    np.testing.assert_allclose(picture.grey, np.clip((array.astype(float) - low) / (high - low), 0, 1), atol=1e-6)
    assert np.array_equal(picture.values, array)
    assert picture.bits == 32


def tiff_of(path: Path, pixels: bytes, order: str = "<", following: int = 0, **tags) -> Path:
    """An uncompressed TIFF by hand, in one strip; `tags` are numbers by their TIFF number, as ``t262=0``."""
    numbers = {256: 30, 257: 20, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: 20, 279: len(pixels)}
    numbers |= {int(name[1:]): value for name, value in tags.items()}
    numbers = {tag: value for tag, value in numbers.items() if value is not None}
    body = pixels + bytes(len(pixels) % 2)
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in sorted(numbers.items()))
    directory = struct.pack(order + "H", len(numbers)) + entries + struct.pack(order + "I", following)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    path.write_bytes(magic + struct.pack(order + "I", 8 + len(body)) + body + directory)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_of_either_order_of_bytes(tmp_path, order):
    picture = read_picture(tiff_of(tmp_path / "a.tif", DEEP.astype(order + "u2").tobytes(), order))
    assert picture.values.dtype == np.dtype("=u2")
    assert np.array_equal(picture.values, DEEP)


def test_signed_and_large_numbers_of_tiff(tmp_path):
    signed = RNG.integers(-1000, 1000, SHAPE).astype("<i2")
    assert np.array_equal(read_picture(tiff_of(tmp_path / "s.tif", signed.tobytes(), t339=2)).values, signed)
    large = RNG.integers(0, 2**32, SHAPE).astype("<u4")
    assert np.array_equal(read_picture(tiff_of(tmp_path / "l.tif", large.tobytes(), t258=32)).values, large)


def test_a_tiff_in_which_white_is_zero_is_inverted_once(tmp_path):
    """Pillow inverts 8 bit and leaves 16 bit as it is."""
    for name, array, bits in (("a.tif", GREY, 8), ("b.tif", DEEP, 16)):
        black = read_picture(tiff_of(tmp_path / name, array.astype(f"<u{bits // 8}").tobytes(), t258=bits))
        white = read_picture(tiff_of(tmp_path / name, array.astype(f"<u{bits // 8}").tobytes(), t258=bits, t262=0))
        np.testing.assert_allclose(white.grey, 1 - black.grey, atol=1e-6)
        assert np.array_equal(white.values, array)
        assert white.converted[-1] == "white is 0: inverted"


def test_tiles_and_strips_of_a_tiff(tmp_path):
    whole = np.zeros((32, 32), "<u2")
    whole[:20, :30] = DEEP
    tiles = b"".join(whole[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16))
    path = tiff_of(tmp_path / "t.tif", tiles, t273=None, t278=None, t279=None)
    content = bytearray(path.read_bytes())
    # Two tags with four numbers each, which lie at the end.
    place = struct.unpack("<I", content[4:8])[0]
    offsets, lengths = struct.pack("<4I", *(8 + 512 * k for k in range(4))), struct.pack("<4I", *[512] * 4)
    end = len(content)
    tags = [(322, 1, 16), (323, 1, 16), (324, 4, end + 4 * 12), (325, 4, end + 4 * 12 + 16)]
    entries = content[place + 2 : -4] + b"".join(struct.pack("<HHII", tag, 4, n, value) for tag, n, value in tags)
    content[place:] = struct.pack("<H", len(entries) // 12) + entries + bytes(4) + offsets + lengths
    path.write_bytes(content)
    assert np.array_equal(read_picture(path).values, DEEP)


def test_a_constant_picture_of_16_bit_is_black_and_says_so(tmp_path):
    picture = read_picture(saved(tmp_path / "flat.png", np.full(SHAPE, 900, np.uint16)))
    assert (picture.grey == 0).all()
    assert picture.converted == ("16 bit: all numbers are 900, so 0",)


def test_a_few_bright_pixels_of_a_constant_picture_are_seen(tmp_path):
    dot = np.full((100, 100), 900, np.uint16)
    dot[3, 4] = 1000
    grey = read_picture(saved(tmp_path / "dot.png", dot)).grey
    assert grey[3, 4] == 1
    assert grey.sum() == 1


def test_16_bit_colour_says_that_it_has_8(tmp_path):
    colours = RNG.integers(0, 65536, (*SHAPE, 3)).astype(">u2")
    picture = read_picture(png_of(tmp_path / "c.png", 30, 20, 16, 2, rows_of(colours)))
    assert np.array_equal(picture.values, colours >> 8)
    assert (picture.bits, picture.converted) == (8, ("16 bit colour reduced to 8 bit", "RGB to luma"))


@pytest.mark.parametrize(("colours", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_of_which_8_bit_keep_too_little_is_refused(tmp_path, colours, channels):
    pixels = np.repeat(DEEP[..., None], channels, axis=-1).astype(">u2")
    pixels[..., 2 * (channels // 2) - 1 :] = 65535 if channels in (2, 4) else pixels[..., :1]
    path = png_of(tmp_path / "c.png", 30, 20, 16, colours, rows_of(pixels))
    refused(path, "expected 16-bit colour that fills its range, found 1. levels in the 8 bits that are kept")


# --- properties -------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda kind: arrays.arrays(kind, st.tuples(st.integers(16, 40), st.integers(16, 40)))
    ),
    st.sampled_from([".png", ".tif"]),
)
@settings(deadline=None)
def test_what_is_written_is_read(tmp_path_factory, array, ending):
    picture = read_picture(saved(tmp_path_factory.mktemp("p") / f"a{ending}", array))
    assert np.array_equal(picture.values, array)
    assert picture.grey.shape == array.shape
    assert picture.grey.dtype == np.float32
    assert 0 <= picture.grey.min() <= picture.grey.max() <= 1


@given(arrays.arrays(np.float32, (16, 17), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@settings(deadline=None)
def test_floats_of_any_size_are_grey(tmp_path_factory, array):
    grey = read_picture(saved(tmp_path_factory.mktemp("p") / "a.tif", array)).grey
    assert 0 <= grey.min() <= grey.max() <= 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(
    ("ending", "array"), [(".png", DEEP), (".png", RGB), (".jpg", STILL), (".tif", DEEP), (".tif", RGB)]
)
def test_a_turned_picture_equals_the_unturned_one(tmp_path, orientation, ending, array):
    image, exif = Image.fromarray(array), Image.Exif()
    exif[274] = orientation
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image if orientation == 1 else image.transpose(back[orientation])
    options = {"quality": 100} if ending == ".jpg" else {}
    picture = read_picture(saved(tmp_path / f"turned{ending}", stored, exif=exif, **options))
    plain = read_picture(saved(tmp_path / f"plain{ending}", image, **options))
    assert picture.grey.shape == SHAPE
    assert np.abs(picture.grey - plain.grey).max() <= (0.02 if ending == ".jpg" else 0)
    assert np.abs(picture.values.astype(int) - plain.values).max() <= (5 if ending == ".jpg" else 0)
    said = [note for note in picture.converted if "EXIF" in note]
    assert said == ([] if orientation == 1 else [f"turned by EXIF orientation {orientation}"])


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_turns_nothing(tmp_path, exif):
    path = saved(tmp_path / "a.jpg", STILL)
    content = path.read_bytes()
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])
    assert read_picture(path).converted == ()


# --- names and patients -----------------------------------------------------------------------------------------------


def test_the_name_is_that_of_the_file_without_its_ending(tmp_path):
    names = {"a.b.png": "a.b", "x.JPEG": "x", "1.2.840.dcm": "1.2.840", "1.2.840": "1.2.840", "IM0001": "IM0001"}
    assert {name: picture_name(tmp_path / name) for name in names} == names


def test_age_and_sex_come_from_a_side_car(tmp_path):
    path = saved(tmp_path / "film.png", GREY)
    assert read_picture(path).patient.age_years is None
    (tmp_path / "film.json").write_text(json.dumps({"age": 45, "sex": "F"}))
    patient = read_picture(path).patient
    assert (patient.age_years, patient.age_source, patient.sex) == (45, "sidecar", 0.0)
    (tmp_path / "film.json").write_text("[")
    refused(path, r"expected JSON in the side-car film\.json")


def test_every_ending_belongs_to_one_format():
    assert len(set(PICTURE_ENDINGS)) == len(PICTURE_ENDINGS) == 5
    assert [each.name for each in FORMATS] == ["PNG", "JPEG", "TIFF"]


# --- defects ----------------------------------------------------------------------------------------------------------


def test_nothing_a_folder_and_other_endings(tmp_path):
    refused(tmp_path / "no.png", "expected a picture, found nothing; check the path")
    refused(tmp_path, "expected one picture, found a folder; give the pictures in it")
    (tmp_path / "a.bmp").write_bytes(b"BM")
    refused(
        tmp_path / "a.bmp",
        r"expected \.png, \.jpg, \.jpeg, \.tif, \.tiff or a DICOM file, found '\.bmp'; save it as PNG",
    )
    (tmp_path / "a").write_bytes(b"BM")
    refused(tmp_path / "a", "found 'no ending'")


def test_empty_files_pointers_and_pipes(tmp_path):
    (tmp_path / "a.png").touch()
    refused(tmp_path / "a.png", "found an empty file; copy it again")
    (tmp_path / "b.png").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refused(tmp_path / "b.png", 'run "git lfs pull"')
    os.mkfifo(tmp_path / "c.png")
    refused(tmp_path / "c.png", "found a device, a pipe or a link to nothing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    saved(tmp_path / "a.png", GREY).chmod(0)
    refused(tmp_path / "a.png", "access is denied")


@pytest.mark.parametrize(
    ("start", "found", "remedy"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript", "copy it again, or save it as PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG", "give it its own ending"),
        (b"II*\0", "TIFF", "give it its own ending"),
        (b"GIF89a", "GIF", "save it as PNG"),
        (bytes(128) + b"DICM", "DICOM", "give it its own ending"),
        (b"<html>", "something else", "save it as PNG"),
    ],
)
def test_a_file_of_another_kind_than_its_ending_says(tmp_path, start, found, remedy):
    (tmp_path / "a.png").write_bytes(start + bytes(100))
    refused(tmp_path / "a.png", f"expected PNG as its ending says, found {found}; .*{remedy}")


def test_one_reader_for_one_ending(tmp_path):
    saved(tmp_path / "b.png", GREY).rename(tmp_path / "b.jpg")
    refused(tmp_path / "b.jpg", "expected JPEG as its ending says, found PNG; give it its own ending")
    saved(tmp_path / "c.png", GREY).rename(tmp_path / "c.tif")
    refused(tmp_path / "c.tif", "expected TIFF as its ending says, found PNG")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_is_cut_short(tmp_path, ending, keep):
    path = saved(tmp_path / f"a{ending}", RGB)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    refused(path, "expected")


def test_a_tiff_whose_strips_are_cut_short(tmp_path):
    path = tiff_of(tmp_path / "a.tif", DEEP.astype("<u2").tobytes()[:600])
    refused(path, "expected 1,200 bytes of pixels as its header declares, found 600; the file is cut short")
    refused(tiff_of(tmp_path / "b.tif", DEEP.tobytes(), t278=5), "expected 4 strips or tiles .* found 1 with 1 lengths")
    refused(tiff_of(tmp_path / "c.tif", DEEP.tobytes(), t273=900), "expected all pixels of a TIFF inside the file")


@pytest.mark.parametrize("size", [(1, 1), (15, 40), (40, 15)])
def test_a_picture_that_is_too_small(tmp_path, size):
    path = saved(tmp_path / "a.png", Image.new("L", size))
    refused(path, f"at least 16 × 16 pixels, its header declares {size[0]} × {size[1]}; give the picture itself")


def bomb(path: Path, side: int) -> Path:
    """A PNG, all black, of side × side pixels; 40,000² take 1.6 MB."""
    packer = zlib.compressobj(9)
    start = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    rows = packer.compress(bytes((side + 1) * 1000)) + packer.flush(zlib.Z_FULL_FLUSH)  # the same bytes again and again
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = start + rows * (side // 1000) + packer.flush()
    path.write_bytes(PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


def grown_mib(path: Path) -> float:
    """How much more memory a process takes at most when it reads a picture, than it had before."""
    program = (
        "import resource, sys\nfrom balaitous.reading.pictures import read_picture\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbefore = peak()\n"
        "try:\n    read_picture(sys.argv[1])\nexcept Exception as error:\n    print(error, file=sys.stderr)\n"
        "print((peak() - before) / 1024)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_a_bomb_is_refused_by_its_header_without_memory(tmp_path):
    path = bomb(tmp_path / "a.png", 40_000)
    assert path.stat().st_size < 2_000_000
    refused(
        path,
        "expected a picture of at most 67,108,864 pixels, its header declares 40,000 × 40,000; .*BALAITOUS_MAX_GIB",
    )
    assert grown_mib(path) < 16


@pytest.mark.parametrize("side", [12_000, 20_000])
def test_neither_pillow_s_warning_nor_its_error_is_heard(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    refused(path, "at most 67,108,864 pixels")
    path = saved(tmp_path / "a.jpg", STILL)
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0")
    content[place + 5 : place + 9] = struct.pack(">HH", side, side)
    path.write_bytes(content)
    refused(path, "at most 67,108,864 pixels")
    refused(tiff_of(tmp_path / "a.tif", bytes(100), t256=side, t257=side), "at most 67,108,864 pixels")


def test_more_pixels_than_so_few_bytes_can_hold(tmp_path):
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(99)) + chunk(b"IEND", b""))
    refused(path, "expected 64,000,000 bytes of pixels as its header declares, found 99 compressed")


def test_the_limit_can_be_lowered_and_raised(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", GREY)
    monkeypatch.setenv("BALAITOUS_MAX_GIB", str(599 * 128 / 2**30))
    refused(path, "at most 599 pixels, its header declares 30 × 20")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "1e-7")
    refused(path, r"expected a picture of at most \d bytes")
    monkeypatch.setenv("BALAITOUS_MAX_GIB", "1000000")
    assert read_picture(path).grey.shape == SHAPE


def test_a_file_is_read_against_the_clock(tmp_path, monkeypatch):
    monkeypatch.setenv("BALAITOUS_MAX_SECONDS", "1e-9")
    refused(saved(tmp_path / "a.png", GREY), "raise BALAITOUS_MAX_SECONDS")


def test_texts_and_profiles_never_reach_pillow(tmp_path):
    """A text or profile of 64 MiB in a few kB, which Pillow inflates before it knows the size."""
    packed = zlib.compress(bytes(2**26), 9)
    parts = [chunk(b"zTXt", b"a\0\0" + packed), chunk(b"iCCP", b"a\0\0" + packed), chunk(b"tIME", bytes(7))]
    path = png_of(tmp_path / "a.png", 30, 20, 8, 0, rows_of(GREY), *parts)
    assert np.array_equal(read_picture(path).values, GREY)
    assert grown_mib(path) < 16


def test_directories_that_read_the_same_bytes_many_times(tmp_path):
    """5,000 tags of 60 kB in Exif data of 60 kB: 300 MB, and more for more."""
    entries = b"".join(struct.pack("<HHII", 1000 + k, 1, 60_000, 0) for k in range(5000))
    exif = (b"II*\0" + struct.pack("<IH", 8, 5000) + entries).ljust(60_010, b"\0")
    path = saved(tmp_path / "a.jpg", STILL)
    content = path.read_bytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    path.write_bytes(content[:2] + segment + content[2:])
    assert grown_mib(path) < 16
    tiff = tmp_path / "a.tif"
    tiff.write_bytes(b"II*\0" + struct.pack("<IH", 8, 5000) + entries + bytes(4))
    refused(tiff, "expected at most 500 tags in a TIFF, found 5,000")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content.replace(b"IHDR", b"IHDX"), "'IHDX' is damaged"),
        (lambda content: content[:8] + chunk(b"tEXt", b"a\0b") + content[8:], "starts with its header"),
        (lambda content: content[:33] + content[8:33] + content[33:], "expected one IHDR in a PNG, found two"),
        (lambda content: content[:33] + chunk(b"CgBI", b"") + content[33:], "found a part 'CgBI'"),
        (lambda content: content[:33] + chunk(b"\x1b[2J", b"") + content[33:], None),
        (lambda content: content[:33] + chunk(b"gAMA", b"") * 2**17 + content[33:], "at most 131,072 parts"),
        (lambda content: content[:60] + b"x" + content[61:], "its part 'IDAT' is damaged"),
        (lambda content: content[:8] + chunk(b"IHDR", bytes(3)) + content[33:], "damaged or rare"),
        (
            lambda content: content[:8] + chunk(b"IHDR", bytes(8) + b"\3\5\0\0\0") + content[33:],
            "found type 5 of 3 bits",
        ),
        (
            lambda content: content[:8] + chunk(b"IHDR", content[16:24] + b"\4\3\0\0\0") + content[33:],
            "expected a palette",
        ),
        (lambda content: content[:33] + chunk(b"IEND", b""), "expected 600 bytes of pixels"),
        (lambda content: content[:33] + chunk(b"IDAT", b"no zlib") + content[-12:], "damaged or rare"),
    ],
)
def test_damaged_png(tmp_path, damage, reason):
    path = saved(tmp_path / "a.png", GREY)
    path.write_bytes(damage(path.read_bytes()))
    if reason is None:  # what a reader may leave out
        assert np.array_equal(read_picture(path).values, GREY)
    else:
        refused(path, reason)


def test_animated_and_several_pictures(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    refused(tmp_path / "a.png", "expected one picture, found an animated PNG; give the frame as a PNG of its own")
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    refused(tmp_path / "a.tif", "expected one picture, found a TIFF of several; give the page as a file of its own")


def test_a_second_picture_behind_a_jpeg_is_left_alone(tmp_path):
    path = saved(tmp_path / "a.jpg", STILL)
    alone = read_picture(path).values
    path.write_bytes(path.read_bytes() * 2)
    assert np.array_equal(read_picture(path).values, alone)


@pytest.mark.parametrize(("ending", "mode"), [(".jpg", "CMYK"), (".tif", "CMYK"), (".tif", "LAB"), (".tif", "YCbCr")])
def test_colours_that_are_not_grey_or_rgb(tmp_path, ending, mode):
    image = Image.fromarray(RGB).convert(mode) if mode != "LAB" else Image.new("LAB", (30, 20))
    refused(
        saved(tmp_path / f"a{ending}", image), f"found {'CIELab' if mode == 'LAB' else mode}; save it as grey or RGB"
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content.replace(b"\xff\xc0", b"\xff\xc3"), "found a lossless, arithmetic or hierarchical one"),
        (lambda content: content.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc1\0\x0b\x0c"), "found one of 12 bits"),
        (lambda content: content[:2] + b"\xff\x01\0\x02" + content[2:], "cut short or damaged"),
        (lambda content: content[:20] + b"junk" + content[20:], "cut short or damaged"),
        (lambda content: content[:2] + b"\xff\xfe\0\x02" * 5000 + content[2:], "at most 4,096 segments"),
        (
            lambda content: content[:-2] + content[content.index(b"\xff\xda") : -2] * 60 + content[-2:],
            "at most 50 scans",
        ),
        (lambda content: content[: content.index(b"\xff\xda")] + b"\xff\xd9", "a JPEG with an image"),
        (lambda content: content[:-2] + content[content.index(b"\xff\xc0") :], "one image in a JPEG, found two"),
        (lambda content: content[:-2], "cut short"),
        (lambda content: b"\xff\xd8\xff", "cut short"),
    ],
)
def test_damaged_jpeg(tmp_path, damage, reason):
    path = saved(tmp_path / "a.jpg", STILL)
    path.write_bytes(damage(path.read_bytes()))
    refused(path, reason)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"t262": 9}, "found PhotometricInterpretation 9"),
        ({"t262": None}, "tells its size and colours"),
        ({"t259": 7}, "found Compression 7; save it as PNG"),
        ({"t259": 4}, "found Compression 4"),
        ({"t258": 64}, "of at most 32 bits, found 1 channels of 64 bits"),
        ({"t277": 5}, "found 5 channels"),
        ({"t258": 8, "t339": 2}, "expected unsigned numbers in a TIFF of 8 bits"),
        ({"t256": 0}, "declares 0 × 20"),
        ({"t278": 0}, "expected 20 strips"),
        ({"following": 8}, "a TIFF of several"),
        ({"t259": 1_000_000}, "found Compression 1000000"),
        ({"t317": 1_000_000}, "damaged or rare"),
        ({"t339": 4}, "damaged or rare"),
    ],
)
def test_odd_tiff(tmp_path, tags, reason):
    refused(tiff_of(tmp_path / "a.tif", DEEP.astype("<u2").tobytes(), **tags), reason)


def test_tags_twice_without_numbers_and_of_no_tiff(tmp_path):
    entry = struct.pack("<HHII", 256, 4, 1, 30)
    path = tmp_path / "a.tif"
    for entries, reason in (
        (entry * 2, "expected ImageWidth of a TIFF once"),
        (struct.pack("<HHII", 256, 2, 1, 30), "as whole numbers"),
        (struct.pack("<HHII", 273, 4, 2**30, 8), "as whole numbers"),
        (struct.pack("<HHII", 256, 3, 2, 30), "expected one number as ImageWidth"),
        (struct.pack("<HHII", 273, 4, 2, 10**6), "damaged or rare"),
    ):
        path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(entries) // 12) + entries + bytes(4))
        refused(path, reason)
    path.write_bytes(b"II*\0\xff\xff\xff\xff")
    refused(path, "damaged or rare")


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_tiff_with_nan_or_infinity(tmp_path, odd):
    array = RNG.normal(0, 1, SHAPE).astype(np.float32)
    array[3, 4] = odd
    refused(saved(tmp_path / "a.tif", array), "expected numbers in every pixel, found NaN or infinity")


def test_a_full_memory_stays_one(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr("balaitous.reading.pictures._values", full)
    with pytest.raises(MemoryError):
        read_picture(saved(tmp_path / "a.png", GREY))


def test_names_cannot_fake_a_line(tmp_path):
    refused(saved(tmp_path / "a\n\x1b[2J.png", Image.new("L", (1, 1))), "at least 16")


def test_reading_leaves_pillow_as_it_was(tmp_path, capfd):
    before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, warnings.filters[:]
    read_picture(saved(tmp_path / "a.png", GREY))
    assert before == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK, warnings.filters[:])
    assert capfd.readouterr() == ("", "")


def test_the_seeds_of_the_fuzz_target_are_read(tmp_path):
    for seed in target.seeds():
        target.check(seed, tmp_path)
        path = tmp_path / f"picture{target.ENDINGS[seed[0]]}"
        assert read_picture(path).grey.shape == ((16, 16) if path.suffix == ".dcm" else (20, 20))


# --- real pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_real_pictures_are_what_pillow_makes_of_them(data):
    folders = ("xray", "ultrasound", "covid_ct_slices", "sars_cov_2_ct_slices", "infection_masks", "ct_runs")
    for folder in folders:
        files = sorted(each for each in (data / folder).rglob("*") if each.suffix in PICTURE_ENDINGS)
        for file in files[:: max(1, len(files) // 20)]:
            with Image.open(io.BytesIO(file.read_bytes())) as image:
                expected = np.asarray(image.convert("L"))
            assert np.array_equal(read_picture(file).grey * 255, expected), file


@pytest.mark.data
def test_real_slices_in_hu_are_neither_black_nor_white(data):
    for file in sorted((data / "ct_slices_hu").glob("*.png"))[:10]:
        picture = read_picture(file)
        assert picture.bits == 16
        assert 0.1 < picture.grey.mean() < 0.9, file
