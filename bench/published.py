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
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from balaitous import Balaitous


# Which of the published package's steps make up our stages; the rest is reading.
STAGES = {
    "SitkResample": "resample",
    "CreateLungMask": "lungs",
    "SitkToNumpy": "lung_view",
    "CleanLungMask": "lung_view",
    "CropPad": "lung_view",
    "CropLungs": "lung_view",
    "ApplyLungMask": "lung_view",
}


class Timed:
    """A step of the published package that notes how long it takes."""

    def __init__(self, step: object, stages: dict[str, float]) -> None:
        self.step, self.stages = step, stages
        kind = type(step).__name__
        self.stage = f"features_{step.key}" if kind == "iBOTExtractor" else STAGES.get(kind, "other")

    def __call__(self, sample: dict) -> dict:
        start = time.perf_counter()
        sample = self.step(sample)
        self.stages[self.stage] = self.stages.get(self.stage, 0.0) + time.perf_counter() - start
        return sample


def peak_memory_mb() -> float:
    """Largest resident set of this process so far, in MB. That of getrusage would start with the parent's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e6


def main() -> None:
    out, scans = Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]]
    out.mkdir(parents=True, exist_ok=True)
    model = Balaitous()
    start_seconds = time.perf_counter() - START
    stages: dict[str, float] = {}
    model.transforms.transforms = [Timed(step, stages) for step in model.transforms.transforms]

    rows = []
    for scan in scans:
        stages.clear()
        start = time.perf_counter()
        sample = model(str(scan), age=65, sex=0.5, return_dict=True)
        rows.append(
            {
                "scan": scan.name,
                "seconds": time.perf_counter() - start,
                "slices_used": sample["image"].shape[2],
                "stages": dict(stages),
            }
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
