"""Side by side with the published package: same scans, same weights, same machine, one after the other.

usage: python bench/run.py --published-python PYTHON --checkpoints DIR --out DIR SCAN [SCAN …]

PYTHON is the interpreter of an environment of its own with `pip install balaitous==1.2 lungmask==0.2.20`; DIR holds the
three network files under their published names (stand-ins with random encoders do for agreement, time and memory).
Writes OUT/results.json and OUT/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balaitous.severity.heads import OUTCOMES, VIEWS, Heads
from balaitous.weights.heads import read_heads
from balaitous.weights.pack import pack
from balaitous.weights.registry import STOIC_HEADS

BENCH = Path(__file__).parent
LARGEST_LOGIT = 4.0  # the heads are scaled to this: random features would saturate every probability
AGE_YEARS, SEX = 65.0, 0.5

# What counts as agreement in fp32 (DESIGN: numbers to reach).
LEAST_DICE, LEAST_COSINE, MOST_RELATIVE, MOST_PROBABILITY = 0.999, 0.9999, 1e-2, 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published-python", required=True)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("scans", type=Path, nargs="+")
    options = parser.parse_args()
    results = run_side_by_side(
        options.published_python, options.checkpoints, options.out, options.scans, options.precision
    )
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    table = markdown(results)
    (options.out / "results.md").write_text(table)
    print(table)


def run_side_by_side(
    published_python: str, checkpoints: Path, out: Path, scans: list[Path], precision: str = "fp32"
) -> dict[str, Any]:
    """Run both packages in turn, scan by scan, each in a fresh process, and compare what they computed."""
    out.mkdir(parents=True, exist_ok=True)
    bundle = stand_in_bundle(checkpoints, out / "bundle")
    home = out / "torch_home"
    (home / "hub").mkdir(parents=True, exist_ok=True)
    if not (home / "hub/checkpoints").exists():
        (home / "hub/checkpoints").symlink_to(checkpoints.resolve())

    rows = []
    for scan in map(Path.resolve, scans):
        theirs, ours = out / "published" / scan.name, out / "ours" / scan.name
        environment = {**os.environ, "TORCH_HOME": str(home), "PYTHONPATH": ""}
        subprocess.run([published_python, BENCH / "published.py", theirs, scan], check=True, env=environment)
        subprocess.run([sys.executable, BENCH / "ours.py", ours, bundle, precision, scan], check=True)
        rows.append(
            {
                "scan": scan.name,
                "published": json.loads((theirs / "run.json").read_text()),
                "ours": json.loads((ours / "run.json").read_text()),
                "agreement": agreement(np.load(theirs / f"{scan.name}.npz"), np.load(ours / f"{scan.name}.npz")),
            }
        )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} × {processor()}, {platform.system()}, Python {platform.python_version()}",
        "precision": precision,
        "scans": rows,
    }


def stand_in_bundle(checkpoints: Path, folder: Path) -> Path:
    """The checkpoints as a bundle of ours, made once."""
    if not (folder / "bundle.json").exists():
        names = ("unet_r231-d5d2fc3d.pth", "vitl_16_ct.pth", "vitl_16_pt22k.pth")
        unet, full, lung = (checkpoints / name for name in names)
        pack(unet, full, lung, STOIC_HEADS, folder, name="stand-in", intended_use="Benchmarks only.")
    return folder


def agreement(theirs: Any, ours: Any) -> dict[str, float]:
    """How far two runs on one scan are apart.

    ``dice`` of the lung masks; ``image_hu``, the largest difference of the cropped images; for each view the ``cosine``
    of the features and their ``relative`` difference ‖Δ‖/‖ref‖; ``probability``, the largest difference of any of the
    six, with the published heads scaled so that no logit of the published run leaves ±4.
    """
    masks = theirs["mask"], ours["mask"]
    out = {
        "dice": 2 * float((masks[0] & masks[1]).sum()) / float(masks[0].sum() + masks[1].sum()),
        "image_hu": float(np.abs(theirs["image"].astype(int) - ours["image"]).max()),
    }
    for view in VIEWS:
        a, b = (run[f"features_{view}"].astype(float) for run in (theirs, ours))
        out[f"cosine_{view}"] = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        out[f"relative_{view}"] = float(np.linalg.norm(a - b) / np.linalg.norm(a))
    heads = scaled_heads({view: theirs[f"features_{view}"] for view in VIEWS})
    first, second = (
        heads.probabilities({view: run[f"features_{view}"] for view in VIEWS}, AGE_YEARS, SEX) for run in (theirs, ours)
    )
    out["probability"] = max(abs(first[key] - second[key]) for key in first)
    return out


def scaled_heads(features: dict[str, NDArray]) -> Heads:
    """The published heads, each scaled so that its logit for these features lies in ±4."""
    arrays = dict(read_heads(STOIC_HEADS))
    for view in VIEWS:
        for outcome in OUTCOMES:
            patient = [] if outcome == "covid" else [AGE_YEARS / 100, SEX]
            inputs = np.concatenate([features[view], patient])
            coef, intercept = f"coef_{view}_{outcome}", f"intercept_{view}_{outcome}"
            scale = min(1.0, LARGEST_LOGIT / abs(float(inputs @ arrays[coef] + arrays[intercept])))
            arrays[coef], arrays[intercept] = arrays[coef] * scale, arrays[intercept] * scale
    return Heads(arrays)


def agrees(row: dict[str, float]) -> bool:
    """Whether a scan's agreement is within the design's figures."""
    return (
        row["dice"] >= LEAST_DICE
        and min(row["cosine_full"], row["cosine_lung"]) >= LEAST_COSINE
        and max(row["relative_full"], row["relative_lung"]) <= MOST_RELATIVE
        and row["probability"] <= MOST_PROBABILITY
    )


def markdown(results: dict[str, Any]) -> str:
    """The results as a page of tables."""
    lines = [
        f"{results['date']}; {results['machine']}; {results['precision']}",
        "",
        "| scan | slices used | published s | ours s | time × | start × | published MB | ours MB | memory × |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["scans"]:
        theirs, ours = row["published"], row["ours"]
        seconds = [run["scans"][0]["seconds"] for run in (theirs, ours)]
        starts = [run["start_seconds"] for run in (theirs, ours)]
        memory = [run["peak_memory_mb"] for run in (theirs, ours)]
        lines.append(
            f"| {row['scan']} | {ours['scans'][0]['slices_used']} | {seconds[0]:.1f} | {seconds[1]:.1f} "
            f"| {seconds[1] / seconds[0]:.2f} | {starts[1] / starts[0]:.2f} "
            f"| {memory[0]:.0f} | {memory[1]:.0f} | {memory[1] / memory[0]:.2f} |"
        )
    lines += [
        "",
        "| scan | Dice | image HU | cosine full, lung | ‖Δ‖/‖ref‖ full, lung | probability | within the design |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["scans"]:
        a = row["agreement"]
        lines.append(
            f"| {row['scan']} | {a['dice']:.6f} | {a['image_hu']:.0f} | {a['cosine_full']:.7f}, {a['cosine_lung']:.7f} "
            f"| {a['relative_full']:.1e}, {a['relative_lung']:.1e} | {a['probability']:.1e} "
            f"| {'yes' if agrees(a) else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def processor() -> str:
    """The processor's name, where the system tells."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
