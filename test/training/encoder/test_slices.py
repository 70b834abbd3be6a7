"""2-D pictures on their way into the slices that encoders learn from."""

import logging
import struct
import zlib

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from balaitous.training.encoder.slices import SliceStore, keep_slices, picture_as_hu


def test_8_bit_pictures_give_the_slices_they_always_gave(tmp_path):
    """Kept slices are looked up by the picture's content: the same must come out of it, bit for bit."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 60, 3), np.uint8)
    for number, (mode, ending) in enumerate((("L", "png"), ("RGB", "png"), ("P", "png"), ("1", "png"), ("RGB", "jpg"))):
        path = tmp_path / f"{number}.{ending}"
        Image.fromarray(pixels).convert(mode).save(path)
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"), np.float32)
        square = F.interpolate(
            torch.tensor(grey)[None, None], (224, 224), mode="bilinear", align_corners=False, antialias=True
        )
        expected = (-1024 + square[0].numpy() / 255 * 1624).round().astype(np.int16)
        assert np.array_equal(picture_as_hu(path), expected)


def test_a_16_bit_picture_keeps_its_contrast(tmp_path):
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)).save(tmp_path / "deep.png")
    hu = picture_as_hu(tmp_path / "deep.png")
    assert abs(np.median(hu) - (-1024 + 600) / 2) < 10


def test_pictures_that_cannot_be_read_are_named_and_left_out(model, tmp_path, caplog):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    Image.fromarray(np.full((50, 60), 255, np.uint8)).save(tmp_path / "good.png")
    bomb = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)) + chunk(b"IDAT", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bomb + chunk(b"IEND", b""))
    (tmp_path / "figure.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n")

    store = SliceStore(tmp_path / "slices", model)
    with caplog.at_level(logging.WARNING, "balaitous"):
        kept = keep_slices(model, store, [tmp_path], None, lambda run, rows: None)
    assert list(kept) == [tmp_path / "good.png"]
    assert [each.getMessage().split(": expected")[0] for each in caplog.records] == [
        f"left out: {tmp_path / 'bomb.png'}",
        f"left out: {tmp_path / 'figure.png'}",
    ]
