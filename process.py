"""Entry point of the Grand Challenge container: reads /input, writes /output.

usage: python process.py [exec | invoke | train | evaluate] [INPUT_DIR [OUTPUT_DIR]]

`exec` runs one job, `invoke` serves one after the other over HTTP; default: $API_METHOD, else exec. INPUT_DIR is
laid out like /input of a job (images/ct/*.mha), or holds scans; for `train` a cohort, for `evaluate` a submission.
"""

import os
import sys
from pathlib import Path

# Of the package only what needs no library: an earlier job's answers are gone before anything can fail.
from balaitous.container.answers import ANSWERS, remove_answers
from balaitous.container.streams import log_to_stdout, refuse, report, settle_streams
from balaitous.memory import check_memory_limit
from balaitous.reading.limits import check_limits


def main(arguments: list[str]) -> int:
    """Run one job and return its exit code."""
    log_to_stdout()
    mode = arguments.pop(0) if arguments and arguments[0] in ANSWERS else os.environ.get("API_METHOD", "exec")
    if len(arguments) > 2:
        return refuse(f"expected at most INPUT_DIR and OUTPUT_DIR, found {len(arguments)} arguments")
    input_dir = Path(arguments[0] if arguments else "/input")
    output_dir = Path(arguments[1] if len(arguments) > 1 else "/output")
    try:
        remove_answers(output_dir, mode)
        if mode not in ANSWERS:
            return refuse(f"expected API_METHOD={' or '.join(ANSWERS)}, found {mode!r}")
        try:
            check_limits()
        except ValueError as error:
            return refuse(str(error))
        check_memory_limit()
        return run(mode, input_dir, output_dir)
    except Exception as error:
        return report(error)
    finally:
        settle_streams()


def run(mode: str, input_dir: Path, output_dir: Path) -> int:
    """Run one job, or serve many."""
    if mode == "exec":
        from balaitous.cohort.processes import ReadingProcess
        from balaitous.container.grand_challenge import MODEL, load_model, run_job

        with ReadingProcess(MODEL.preparing) as reader:
            return run_job(load_model, input_dir, output_dir, reader)
    if mode == "invoke":
        from balaitous.container.server import serve

        serve(input_dir, output_dir)
    elif mode == "train":
        from balaitous.container.training import train_submission

        train_submission(input_dir, output_dir)
    else:
        from balaitous.container.evaluation import evaluate_submission

        evaluate_submission(input_dir, output_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
