"""The files of a job's answers, and how those of an earlier job go: the first thing that a job does.

Only the standard library is imported here, and `balaitous.files`: whatever ends a job early, a library that cannot be
loaded say, it leaves no number of another job behind.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from balaitous.files import remove_partials

RESULTS_FILE = "results.json"
PROBABILITY_FILES = {
    "probability-covid.json": "probability_covid",
    "probability-covid-19.json": "probability_covid",
    "probability-severe-covid.json": "probability_severe",
    "probability-severe-covid-19.json": "probability_severe",
}
METRICS_FILE = "metrics.json"
PREDICTED = (RESULTS_FILE, *PROBABILITY_FILES)  # the file that vouches for the others goes first
# Of a training the features stay: it goes on from them.
ANSWERS = {
    "exec": PREDICTED,
    "invoke": PREDICTED,
    "train": (METRICS_FILE, "bundle", "table.md", "out_of_fold.csv"),
    "evaluate": (METRICS_FILE,),
}


def remove_answers(output_dir: Path, mode: str = "exec") -> None:
    """Remove what an earlier job of this mode answered, or left half-written when it was killed.

    Parameters
    ----------
    output_dir : need not exist
    mode : one of `ANSWERS`; of any other, which is a mistake, all answers that are files

    Raises
    ------
    OSError : something cannot be removed
    """
    for name in ANSWERS.get(mode, (*PREDICTED, METRICS_FILE)):
        path = output_dir / name
        if path.is_dir() and not path.is_symlink() and mode == "train":
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        remove_partials(path)
