"""What commands share: the two streams, options, the ways to end, and how a run over scans is shown."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from balaitous.errors import one_line
from balaitous.text import PlainFormatter, printable

if TYPE_CHECKING:
    from balaitous.cohort.run import Run
    from balaitous.cohort.table import Row
    from balaitous.models import Model
    from balaitous.weights.bundle import Bundle

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_FILES = 3
EXIT_SOME_FAILED = 5
EXIT_INTERRUPTED = 130
PACE_SECONDS = 30  # between two estimates of the time left, where lines stay
DISCLAIMER = "Research use only, not for diagnosis."


class PlainConsole(Console):
    """Prints every text as it is, names in square brackets and between colons too, and each on one line: what steers a
    terminal or ends a line is escaped, in cells of tables as well.
    """

    def __init__(self, stderr: bool = False, width: int | None = None) -> None:
        super().__init__(soft_wrap=True, highlight=False, markup=False, emoji=False, stderr=stderr, width=width)

    def render_str(self, text: str, **options: Any) -> Text:
        """The text as rich draws it; every string that is printed comes by here."""
        return super().render_str(printable(text), **options)


# No terminal, no width: a table in a log or a file should not be squeezed into 80 columns.
out = PlainConsole(width=None if sys.stdout and sys.stdout.isatty() else 200)
err = PlainConsole(stderr=True)

Age = Annotated[float | None, typer.Option(help="Age in years, when the scan does not tell.")]
Sex = Annotated[str | None, typer.Option(help="M or 1, F or 0; 0.5 if unknown.")]
Weights = Annotated[str | None, typer.Option(help="A bundle's name or folder; see `balaitous weights list`.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, fp16, bf16 or int8.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")]


class Interrupted(Exception):
    """Ctrl-C in the middle of a run."""


class UsageError(Exception):
    """Arguments that make no sense."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Arguments are checked by the library, which raises ValueError; where only they can be wrong, that is misuse."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def fail(message: str, exit_code: int) -> NoReturn:
    """End the command with a line on stderr."""
    err.print(f"ERROR: {one_line(message)}")
    sys.exit(exit_code)


def print_lines(text: str) -> None:
    """Print a text of several lines, such as a table."""
    for line in text.rstrip("\n").split("\n"):
        out.print(line)


def set_up_streams() -> None:
    """What a stream's encoding has no letter for is written as an escape: it is no reason to end a run that is done."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def set_up_logging(verbose: bool) -> None:
    """Warnings of the library as plain lines on stderr, with ``--verbose`` also what it does."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("balaitous").setLevel(logging.INFO if verbose else logging.WARNING)


def note_use(bundle: Bundle) -> None:
    """Say once what the weights are good for."""
    err.print(f"Weights '{bundle.name}' ({bundle.sha256[:12]}): {bundle.intended_use}")
    if bundle.demonstration:
        err.print("These probabilities are a demonstration. For the published weights: balaitous weights fetch stoic")


@contextmanager
def scan_progress(run: Run) -> Iterator[Callable[[str], None]]:
    """A bar on a terminal, a plain line a scan elsewhere; both say how fast it goes and how long it will take."""
    total = len(run.rows)
    if not err.is_terminal:
        said = time.monotonic()

        def line(text: str) -> None:
            nonlocal said
            pace = ""
            if time.monotonic() - said > PACE_SECONDS:
                said, pace = time.monotonic(), f" ({pace_of(run)})"
            err.print(f"[{run.skipped + run.added}/{total}] {text}{pace}")

        yield line
        return
    columns = (TextColumn("scans"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"))
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("scans", total=total, completed=run.skipped, pace="")

        def advance(text: str) -> None:
            progress.console.print(text)
            progress.update(task, advance=1, pace=pace_of(run))

        yield advance


def pace_of(run: Run) -> str:
    """How fast a run goes and how long it will take."""
    minutes = (run.seconds_left or 0) / 60
    left = f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1 else "less than a minute"
    return f"{run.scans_a_minute:.3g} scans a minute, {left} left"


def outcome_line(row: Row, model: Model, single: bool) -> str:
    """What came of an item."""
    if row["status"] == "failed":
        reason = "" if single else f". {row['error']}"  # of a single item it comes last
        return f"{row['PatientID']}: failed{reason}"
    probabilities = ", ".join(f"{label} {row[f'probability_{name}']:.3f}" for name, label in model.outputs.items())
    warned = f"; check: {row['quality_notes']}" if row["quality_notes"] else ""
    return f"{row['PatientID']}: {probabilities} ({row['seconds']:.1f} s){warned}"


def show_summary(summary: Mapping[str, Any]) -> None:
    """What came of several scans."""
    failed = summary["failed"]
    parts = {
        "done": summary["done"],
        "done before": summary["skipped"],
        "failed": sum(each["count"] for each in failed.values()),
        "not tried": summary["not_tried"],
    }
    counts = ", ".join(f"{count} {what}" for what, count in parts.items() if count)
    pace = f"; {summary['scans_a_minute']:.3g} scans a minute" if summary["scans_a_minute"] else ""
    err.print(f"{summary['scans']} scans: {counts}{pace}")
    for kind, each in failed.items():
        err.print(f"  {each['count']} × {kind}, such as: {each['example']}")
