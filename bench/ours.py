"""Run this package on scans and keep what it computes: the counterpart of bench/published.py.

usage: python bench/ours.py OUT_DIR BUNDLE PRECISION SCAN [SCAN …]
"""

# ruff: noqa: E402
import time

START = time.perf_counter()

import json
import sys
from pathlib import Path

import numpy as np
import torch

import balaitous
from balaitous import Balaitous
from balaitous.ct.volume import SPACING_MM


def main() -> None:
    out, bundle, precision, *scans = sys.argv[1:]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    model = Balaitous(bundle, precision=precision)
    start_seconds = time.perf_counter() - START

    rows = []
    for scan in map(Path, scans):
        start = time.perf_counter()
        prediction = model.predict(scan, age=65, sex=0.5)
        rows.append(
            {
                "scan": scan.name,
                "seconds": time.perf_counter() - start,
                "slices": int(prediction.slices * prediction.spacing_mm[2] / SPACING_MM[2]),
                "slices_used": len(prediction.image),
                "stages": dict(prediction.seconds),
            }
        )
        published = prediction.published_dict()
        np.savez_compressed(
            folder / f"{scan.name}.npz",
            mask=published["mask"],
            image=published["unmasked_image"],
            **{f"features_{key}": value for key, value in published["features"].items()},
        )
    facts = {
        "package": f"balaitous {balaitous.__version__}",
        "torch": torch.__version__,
        "device": str(model.device),
        "precision": model.precision,
        "threads": torch.get_num_threads(),
        "start_seconds": start_seconds,
        "peak_memory_mb": peak_memory_mb(),
        "scans": rows,
    }
    (folder / "run.json").write_text(json.dumps(facts, indent=1))


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB. That of getrusage would start with the parent's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()
