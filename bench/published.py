"""Run the published package (balaitous 1.2) on scans and keep what it computes; runs in the package's own environment.

usage: python bench/published.py OUT_DIR SCAN [SCAN …]

Needs the three network files in $TORCH_HOME/hub/checkpoints. Writes OUT_DIR/<scan's file name>.npz (mask, image,
features, probabilities) and OUT_DIR/run.json (seconds, peak memory, versions), as bench/ours.py does for this package.
Imports nothing of this repository: both packages have the same import name.
"""

# ruff: noqa: E402, I001
import time

START = time.perf_counter()

import json
import resource
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from balaitous import Balaitous


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    out, scans = Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]]
    out.mkdir(parents=True, exist_ok=True)
    model = Balaitous()
    start_seconds = time.perf_counter() - START

    rows = []
    for scan in scans:
        start = time.perf_counter()
        sample = model(str(scan), age=65, sex=0.5, return_dict=True)
        rows.append(
            {"scan": scan.name, "seconds": time.perf_counter() - start, "slices_used": sample["image"].shape[2]}
        )
        np.savez_compressed(
            out / f"{scan.name}.npz",
            mask=sample["mask"],
            image=sample["unmasked_image"],
            **{f"features_{key}": value for key, value in sample["features"].items()},
        )
    facts = {
        "package": f"balaitous {version('balaitous')}",
        "torch": torch.__version__,
        "device": model.device,
        "threads": torch.get_num_threads(),
        "start_seconds": start_seconds,
        "peak_memory_mb": peak_memory_mb(),
        "scans": rows,
    }
    (out / "run.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
