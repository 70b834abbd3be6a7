"""The ``balaitous`` command: parses, calls, prints.

Exit codes: 0 done, 2 usage, 3 input not usable, 4 weights missing or not what they claim, 5 some of many items failed,
130 interrupted, 1 memory is not enough, or something that nobody expected.
"""

from __future__ import annotations

import atexit
import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import closing
from multiprocessing import active_children
from pathlib import Path
from typing import Annotated

import typer

import balaitous
from balaitous.cli.console import (
    DISCLAIMER,
    EXIT_FILES,
    EXIT_INTERRUPTED,
    EXIT_UNEXPECTED,
    EXIT_USAGE,
    Age,
    Interrupted,
    Sex,
    UsageError,
    err,
    fail,
    note_use,
    out,
    set_up_streams,
    usage_errors,
)
from balaitous.cli.evaluate import evaluate
from balaitous.cli.info import info
from balaitous.cli.predict import check_patient, predict
from balaitous.cli.train import train_app
from balaitous.cli.weights import weights_app
from balaitous.errors import BalaitousError, explain
from balaitous.memory import check_memory_limit, memory_errors
from balaitous.models import DEFAULT, MODELS, Settings, load_model

CHILD_SECONDS = 1  # that a process gets to end by itself

app = typer.Typer(
    help=f"Probability of COVID-19 and of a severe outcome from a chest CT. {DISCLAIMER}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
app.command()(predict)
app.command()(evaluate)
app.command()(info)
app.add_typer(weights_app, name="weights")
app.add_typer(train_app, name="train")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; errors of the user's end in one line and an exit code."""
    set_up_streams()
    try:
        check_memory_limit()
        with memory_errors():
            app(arguments)
    except BalaitousError as error:
        fail(str(error), error.exit_code)
    except UsageError as error:
        fail(str(error), EXIT_USAGE)
    except OSError as error:
        fail(explain(error), EXIT_FILES)
    except Interrupted as error:
        end_children()
        err.print(f"ERROR: {error}")
        # All is written. The usual way out would first wait for the threads that have scans in hand.
        atexit._run_exitfuncs()
        os._exit(EXIT_INTERRUPTED)
    except Exception as error:
        if not isinstance(error, MemoryError):
            for line in "".join(traceback.format_exception(error)).splitlines():
                err.print(line)  # nobody expected it: this is for a report of it
        end_children()  # which may wait for work that nobody can give them any more
        fail(explain(error), EXIT_UNEXPECTED)


def end_children() -> None:
    """End the reading processes: politely, so that they remove what they unpacked, then surely."""
    children = active_children()
    for process in children:
        process.terminate()
    for process in children:
        process.join(CHILD_SECONDS)
        if process.is_alive() and process.pid:  # not `kill`: the processes of joblib have none
            os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))


@app.callback(invoke_without_command=True)
def published_form(
    context: typer.Context,
    path: Annotated[Path | None, typer.Option(help="One scan, in the published package's form.")] = None,
    age: Age = None,
    sex: Sex = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The published package's command line: ``balaitous --path scan.mha --age 65 --sex 1``."""
    if version:
        out.print(f"balaitous version : {balaitous.__version__}")
    elif path is not None:
        if context.invoked_subcommand:
            raise UsageError(f"--path stands alone. Use `balaitous {context.invoked_subcommand} {path}` instead.")
        with usage_errors():
            check_patient(age, sex)
        from balaitous.checks import verdict
        from balaitous.cohort.items import Item
        from balaitous.cohort.local import first_reader, outcome_of

        row = MODELS[DEFAULT]
        with closing(first_reader(row)) as readers:
            model = load_model(row, Settings())
            given = {name: value for name, value in {"age": age, "sex": sex}.items() if value is not None}
            prediction = outcome_of(model, Item(path, given), executor=readers.of_this_thread())
        if isinstance(prediction, Exception):
            raise prediction
        note_use(model.bundle)
        if notes := verdict(prediction.checks)["quality_notes"]:
            err.print(f"Check: {notes}")
        out.print(f"Probability covid: {100 * prediction.probability_covid:.2f}%")
        out.print(f"Probability severe: {100 * prediction.probability_severe:.2f}%")
    elif context.invoked_subcommand is None:
        raise UsageError("expected a command or --path. Try `balaitous --help`.")
