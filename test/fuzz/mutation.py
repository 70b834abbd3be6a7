"""Mutated seeds, the same for the same number: what runs where atheris is not installed, and in the test suite."""

from __future__ import annotations

import random
from collections.abc import Sequence

NUMBERS = (0, 1, 2, 127, 128, 255, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)


def mutated(number: int, seeds: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """The `number`-th mutation: a seed with one to six changes, half of them in its first 400 bytes."""
    choose = random.Random(number)
    data = bytearray(choose.choice(seeds))
    for _ in range(choose.choice((1, 1, 2, 3, 6))):
        place = choose.randrange(min(len(data), choose.choice((400, 1 << 30))) or 1)
        kind = choose.randrange(7)
        if kind == 0 and data:
            data[place] ^= 1 << choose.randrange(8)
        elif kind == 1:
            width = choose.choice((1, 2, 4))
            value = choose.choice(NUMBERS) % 256**width
            data[place : place + width] = value.to_bytes(width, choose.choice(("little", "big")))
        elif kind == 2:
            del data[place : place + choose.choice((1, 2, 4, 16, 100))]
        elif kind == 3:
            other = choose.choice(seeds)
            start = choose.randrange(len(other))
            data[place:place] = other[start : start + choose.choice((1, 4, 16, 100))]
        elif kind == 4:
            token = choose.choice(tokens)
            data[place : place + choose.choice((0, len(token)))] = token
        elif kind == 5:
            line = data.rfind(b"\n", 0, place) + 1
            data[line:line] = data[line : data.find(b"\n", place) + 1]  # a line twice
        elif choose.random() < 0.2:
            del data[place:]
    return bytes(data)
