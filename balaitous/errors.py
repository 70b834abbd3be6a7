"""What can go wrong with data and weights, each with the exit code that the command and the container end with.

Arguments that make no sense raise ``ValueError`` (exit code 2). Every message says what was expected, what was found
and what to do, on one line.
"""

from __future__ import annotations

from collections.abc import Sequence

from balaitous.text import printable

NAMES_SHOWN = 5  # of patients, say, in a message
MAXIMUM_MESSAGE = 1200  # characters: its beginning and its end, which says what to do


class BalaitousError(Exception):
    """Base of every error about data or weights."""

    exit_code = 3


class InputError(BalaitousError):
    """The input cannot be used: not there, not readable, not a chest CT in Hounsfield units."""

    exit_code = 3


class NoLungError(InputError):
    """The image was read, but no lung was found in it."""


class MaskError(InputError):
    """A mask cannot be used: not readable, on another grid than its CT, or with other labels than expected."""


class WeightsError(BalaitousError):
    """Weights are missing, or are not what they claim to be (hash, keys, shapes)."""

    exit_code = 4


def reader_died(scan: str) -> InputError:
    """What to say of a scan of which the process that read it died."""
    return InputError(
        f"{scan}: expected to read it, the process that did was ended: by the system for want of memory, or by the "
        "file. Give the job more memory, or write the file again."
    )


def needs_extra(what: str, packages: str, extra: str) -> str:
    """The message where an optional part of this package is not installed: what needs it, and how to get it.

    Parameters
    ----------
    extra : a name of pyproject.toml's optional dependencies
    """
    return f"{what} needs {packages}: pip install 'balaitous[{extra}]'"


def exit_code_of(kind: str) -> int:
    """The exit code of an error that is known by its class's name, as in tables: 1 of one that nobody expected."""
    kinds: list[type[BalaitousError]] = [BalaitousError]
    for each in kinds:  # grows as it goes
        if each.__name__ == kind:
            return each.exit_code
        kinds += each.__subclasses__()
    return 1


def first_few(names: Sequence[str]) -> str:
    """The first few names, and how many there are."""
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def reason_of(error: BaseException) -> str:
    """What a library's error says, on one line: of an error of the system without the file's name, which we say."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def one_line(text: str) -> str:
    """A message with one space between words, names of any length cut and of any bytes made printable.

    Names and header fields come from files, and must neither fake a line of the log nor steer a terminal.
    """
    text = printable(" ".join(text.split()))
    start, end = 2 * MAXIMUM_MESSAGE // 3, MAXIMUM_MESSAGE // 3
    return text if len(text) <= MAXIMUM_MESSAGE else f"{text[:start]} … {text[-end:]}"


def explain(error: Exception) -> str:
    """What went wrong, on one line."""
    message = one_line(str(error))
    if isinstance(error, BalaitousError):
        return message
    if isinstance(error, MemoryError) and "CUDA" in message:
        return "the GPU's memory is not enough: end what else uses it, take a GPU with more, or the CPU (device cpu)"
    if isinstance(error, MemoryError):
        expected = f" ({message})" if message.startswith("expected") else ""  # libraries tell of their last array only
        return f"the memory is not enough{expected}: give the job more, or bring the scan with thicker slices"
    if isinstance(error, OSError):
        return f"files cannot be read or written: {message}. Check permissions and free space"
    return f"unexpected {type(error).__name__}: {message}"
