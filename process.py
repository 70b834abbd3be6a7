"""Entry point of the Grand Challenge container: reads /input, writes /output.

usage: python process.py [exec | invoke | train | evaluate] [INPUT_DIR [OUTPUT_DIR]]

`exec` runs one job, `invoke` serves one after the other over HTTP; default: $API_METHOD, else exec. INPUT_DIR is
laid out like /input of a job (images/ct/*.mha), or holds scans; for `train` a cohort, for `evaluate` a submission.
"""

import os
import sys
from pathlib import Path

from balaitous.cohort.processes import ReadingProcess
from balaitous.container.grand_challenge import MODEL, flush_log, load_model, log_to_stdout, report, run_job
from balaitous.memory import check_memory_limit

MODES = ("exec", "invoke", "train", "evaluate")


def main(arguments: list[str]) -> int:
    """Run one job and return its exit code."""
    mode = arguments.pop(0) if arguments and arguments[0] in MODES else os.environ.get("API_METHOD", "exec")
    if len(arguments) > 2:
        print(f"ERROR: expected at most INPUT_DIR and OUTPUT_DIR, found {len(arguments)} arguments", file=sys.stderr)
        return 2
    if mode not in MODES:
        print(f"ERROR: expected API_METHOD={' or '.join(MODES)}, found {mode!r}", file=sys.stderr)
        return 2
    input_dir = Path(arguments[0] if arguments else "/input")
    output_dir = Path(arguments[1] if len(arguments) > 1 else "/output")
    log_to_stdout()
    try:
        check_memory_limit()
        return run(mode, input_dir, output_dir)
    except Exception as error:
        return report(error)
    finally:
        flush_log()


def run(mode: str, input_dir: Path, output_dir: Path) -> int:
    """Run one job, or serve many."""
    if mode == "exec":
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
