"""Out-of-fold predictions of a training as a submission to the challenge, and the check of its evaluation.

usage: python submission.py make TRAINING INPUT    write INPUT/predictions.json and the jobs' outputs
       python submission.py check TRAINING OUTPUT  compare OUTPUT/metrics.json with what the training found

Needs the standard library only: ./test.sh runs it in the container.
"""

import csv
import json
import sys
from pathlib import Path

SOCKETS = {
    "probability-covid-19": ("probability_covid", "covid"),
    "probability-severe-covid-19": ("probability_severe", "severe"),
}


def make(training: Path, folder: Path) -> None:
    jobs = []
    with (training / "out_of_fold.csv").open() as file:
        for number, row in enumerate(csv.DictReader(file)):
            output = folder / f"job-{number}" / "output"
            output.mkdir(parents=True)
            for slug, (column, _) in SOCKETS.items():
                (output / f"{slug}.json").write_text(row[column])
            jobs.append(
                {
                    "pk": output.parent.name,
                    "status": "Succeeded",
                    "inputs": [{"socket": {"slug": "ct-image"}, "image": {"name": f"{row['PatientID']}.mha"}}],
                    "outputs": [{"socket": {"slug": slug, "relative_path": f"{slug}.json"}} for slug in SOCKETS],
                }
            )
    (folder / "predictions.json").write_text(json.dumps(jobs))


def check(training: Path, folder: Path) -> None:
    expected = json.loads((training / "metrics.json").read_text())["pooled"]
    found = json.loads((folder / "metrics.json").read_text())["aggregates"]
    for _, outcome in SOCKETS.values():
        if found[f"auc_{outcome}"] != expected[outcome]["delong"]:
            sys.exit(f"auc_{outcome}: expected {expected[outcome]['delong']}, found {found[f'auc_{outcome}']}")
    print(f"as expected: {found}")


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
