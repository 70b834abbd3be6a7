"""Turn every library's way of saying that memory ran out into ``MemoryError``.

Grand Challenge limits the data segment (RLIMIT_DATA), so that an allocation fails inside of the process. Where that
happens in the middle of loading PyTorch's libraries, they end the process without a word; hence `check_memory_limit`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

# What libraries, their threads and the smallest networks take (2 to 32 threads were tried). Below it libgomp and
# OpenBLAS end the process in words of their own.
LEAST_BYTES = 1152 << 20
# PyTorch's CPU allocator, ITK, mmap, the C++ library, threads (their stacks count), CUDA, cuBLAS and cuDNN
SAYS_SO = re.compile(
    "can't allocate memory|(failed|unable) to allocate|cannot allocate memory|bad_alloc|can't start new thread|"
    "out of memory|STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the host or on the GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):  # torch.OutOfMemoryError is one too
        return SAYS_SO.search(str(error)) is not None
    return isinstance(error, MemoryError)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Make every error that memory running out led to a ``MemoryError``, with the words of the library it came from.

    Raises
    ------
    MemoryError : instead of the error, or of what it was turned into: a reader takes a full memory for a bad file
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if words := _words_of_a_full_memory(error):
            raise MemoryError(words) from error
        raise


def _words_of_a_full_memory(error: BaseException | None) -> str | None:
    """What the error says, or the one that led to it. No frame that outlives this call keeps one of them alive."""
    while error is not None:
        if is_out_of_memory(error):
            return str(error) or "out of memory"
        error = error.__cause__ or error.__context__
    return None


def check_memory_limit() -> None:
    """Refuse a memory limit that is too low to load the libraries.

    Raises
    ------
    MemoryError : it says how much is allowed and needed
    """
    allowed = resource.getrlimit(resource.RLIMIT_DATA)[0] if resource else -1
    if 0 <= allowed < LEAST_BYTES:
        raise MemoryError(f"expected at least {LEAST_BYTES >> 20} MiB (RLIMIT_DATA), found {allowed >> 20}")
