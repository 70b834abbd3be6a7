"""Entry point of the Grand Challenge container: reads /input, writes /output.

usage: python process.py [INPUT_DIR [OUTPUT_DIR]]

INPUT_DIR is laid out like /input of a Grand Challenge job (images/ct/*.mha), or is any folder with CT scans.
"""

import logging
import os
import sys
from pathlib import Path

from balaitous.container.grand_challenge import find_cases, open_output, predict_cases, report


def main(arguments: list[str]) -> int:
    """Run one job and return its exit code."""
    if len(arguments) > 2:
        print(f"ERROR: expected at most INPUT_DIR and OUTPUT_DIR, found {len(arguments)} arguments", file=sys.stderr)
        return 2
    method = os.environ.get("API_METHOD", "exec")
    if method != "exec":  # "invoke" will be served by balaitous/container/server.py
        print(f"ERROR: expected API_METHOD=exec, found {method!r}: there is no other mode yet", file=sys.stderr)
        return 2
    input_dir = Path(arguments[0] if arguments else "/input")
    output_dir = Path(arguments[1] if len(arguments) > 1 else "/output")

    # Grand Challenge shows stderr as warnings, and its last line as the reason of a failure: facts go to stdout.
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("balaitous").setLevel(logging.INFO)
    try:
        cases = find_cases(input_dir)
        open_output(output_dir)
        from balaitous import Balaitous  # takes seconds: a job without a scan should not wait for it

        return predict_cases(Balaitous(), cases, output_dir)
    except Exception as error:
        return report(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
