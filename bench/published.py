"""Run the published package (balaitous 1.2) on scans and keep what it computes; runs in the package's own environment.

usage: python bench/published.py OUT_DIR SCAN [SCAN …]

Needs the three network files in $TORCH_HOME/hub/checkpoints. Writes OUT_DIR/<scan's file name>.npz (mask, image, features,
predictions) and OUT_DIR/published.json (seconds, peak memory, versions).
Imports nothing of this repository: both packages have the same import name.
"""

import json
import os
import resource
import sys
import time
from importlib.metadata import version
from pathlib import Path

sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent.parent]

start = time.perf_counter()
import numpy as np  # noqa: E402
import torch  # noqa: E402
from balaitous import Balaitous  # noqa: E402

import_seconds = time.perf_counter() - start


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    out, scans = Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]]
    out.mkdir(parents=True, exist_ok=True)
    if threads := os.environ.get("BENCH_THREADS"):
        torch.set_num_threads(int(threads))

    start = time.perf_counter()
    model = Balaitous()
    load_seconds = time.perf_counter() - start

    rows = []
    for scan in scans:
        start = time.perf_counter()
        sample = model(str(scan), age=65, sex=0.5, return_dict=True)
        seconds = time.perf_counter() - start
        rows.append({"scan": scan.name, "seconds": seconds, "slices": sample["image"].shape[2]})
        np.savez_compressed(
            out / f"{scan.name}.npz",
            mask=sample["mask"],
            image=sample["unmasked_image"],
            **{f"features_{key}": value for key, value in sample["features"].items()},
            **{f"prediction_{key}": value for key, value in sample["prediction"].items()},
        )
    facts = {
        "package": f"balaitous {version('balaitous')}, lungmask {version('lungmask')}, torch {torch.__version__}",
        "device": model.device,
        "threads": torch.get_num_threads(),
        "import_seconds": import_seconds,
        "load_seconds": load_seconds,
        "peak_memory_mb": peak_memory_mb(),
        "scans": rows,
    }
    (out / "published.json").write_text(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
