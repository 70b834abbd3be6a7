"""Commands, in this process and in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

from helpers import ROOT

LIMIT_SECONDS = 1800  # reached where a process hangs, and nowhere else


def run_command(*arguments) -> int:
    """Exit code of `balaitous` with these arguments, in this process."""
    from balaitous.cli import main

    try:
        return main([str(argument) for argument in arguments]) or 0
    except SystemExit as exit_:
        return int(exit_.code or 0)


def run_python(*arguments, prefix=(), **options) -> subprocess.CompletedProcess:
    """Python with these arguments, as a process of its own, in the repository and with the bundle mini."""
    options = {
        "cwd": ROOT,
        "env": os.environ | {"BALAITOUS_WEIGHTS": "mini"},
        "capture_output": True,
        "text": True,
        "timeout": LIMIT_SECONDS,
        **options,
    }
    return subprocess.run([*prefix, sys.executable, *map(str, arguments)], check=False, **options)


def run_job(*arguments, **environment) -> subprocess.CompletedProcess:
    """`process.py` with these arguments, as the container runs it, and variables besides the usual ones."""
    return run_python("process.py", *arguments, env=os.environ | {"BALAITOUS_WEIGHTS": "mini"} | environment)
