"""Side by side with the published package: same scans, same weights, same machine, one after the other.

usage: python bench/run.py SCAN [SCAN …] --published-python PYTHON --out DIR [--checkpoints DIR] [--precision fp32 int8]

PYTHON is the interpreter of an environment of its own with `pip install balaitous==1.2 lungmask==0.2.20`. Checkpoints
are the three network files under their published names; without them, stand-ins of the published size are made (see
bench/standin.py), which do for agreement, time and memory. Writes OUT/results.json and OUT/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from floor import matrix_gflops, scan_gflop
from numpy.typing import NDArray
from standin import FULL_FILE, LUNG_FILE, UNET_FILE, make_standins

from balaitous.severity.heads import OUTCOMES, VIEWS, Heads
from balaitous.severity.heads_file import read_heads
from balaitous.severity.pack import pack
from balaitous.severity.published import STOIC_HEADS
from balaitous.weights.bundle import open_bundle
from balaitous.weights.pack import Facts

BENCH = Path(__file__).parent
LARGEST_LOGIT = 4.0  # the heads are scaled to this: random features would saturate every probability
AGE_YEARS, SEX = 65.0, 0.5

# What counts as agreement (DESIGN: numbers to reach): least Dice and cosine, most ‖Δ‖/‖ref‖ and probability difference.
AGREEMENT = {"fp32": (0.999, 0.9999, 1e-2, 0.002), "int8": (0.98, 0.998, 0.06, 0.02)}
STAGES = ("read", "resample", "body_crops", "lung_unet", "lungs", "lung_view", "features_full", "features_lung")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published-python", required=True)
    parser.add_argument("--checkpoints", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("scans", type=Path, nargs="+")
    options = parser.parse_args()
    checkpoints = options.checkpoints or make_standins(options.out / "checkpoints")
    results = run_side_by_side(options.published_python, checkpoints, options.out, options.scans, options.precision)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    table = markdown(results)
    (options.out / "results.md").write_text(table)
    print(table)


def run_side_by_side(
    published_python: str, checkpoints: Path, out: Path, scans: list[Path], precisions: Sequence[str] = ("fp32",)
) -> dict[str, Any]:
    """Run both packages in turn, scan by scan, each in a fresh process, and compare what they computed."""
    out.mkdir(parents=True, exist_ok=True)
    folder = stand_in_bundle(checkpoints, out / "bundle")
    bundle = open_bundle(folder)
    home = out / "torch_home"
    (home / "hub").mkdir(parents=True, exist_ok=True)
    if not (home / "hub/checkpoints").exists():
        (home / "hub/checkpoints").symlink_to(checkpoints.resolve())

    rows = []
    for scan in map(Path.resolve, scans):
        theirs = out / "published" / scan.name
        environment = {**os.environ, "TORCH_HOME": str(home), "PYTHONPATH": ""}
        subprocess.run([published_python, BENCH / "published.py", theirs, scan], check=True, env=environment)
        published = json.loads((theirs / "run.json").read_text())
        rate = matrix_gflops()
        for precision in precisions:
            ours = out / f"ours_{precision}" / scan.name
            cache = {**os.environ, "BALAITOUS_CACHE": str(out / "cache")}
            if precision == "int8" and not (out / "cache").exists():  # once, on the slices of the first scan
                quantize = ["-m", "balaitous", "weights", "quantize", scan, "--weights", folder]
                subprocess.run([sys.executable, *quantize], check=True, env=cache)
            subprocess.run([sys.executable, BENCH / "ours.py", ours, folder, precision, scan], check=True, env=cache)
            facts = json.loads((ours / "run.json").read_text())
            row = facts["scans"][0]
            rows.append(
                {
                    "scan": scan.name,
                    "precision": precision,
                    "published": published,
                    "ours": facts,
                    "agreement": agreement(np.load(theirs / f"{scan.name}.npz"), np.load(ours / f"{scan.name}.npz")),
                    "matrix_gflops": rate,
                    "floor_seconds": scan_gflop(bundle, row["slices"], row["slices_used"]) / rate,
                }
            )
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} × {processor()}, {platform.system()}, Python {platform.python_version()}",
        "scans": rows,
    }


def stand_in_bundle(checkpoints: Path, folder: Path) -> Path:
    """The checkpoints as a bundle of ours, made once."""
    if not (folder / "bundle.json").exists():
        names = {"lung_unet": UNET_FILE, "encoder_full": FULL_FILE, "encoder_lung": LUNG_FILE}
        parts = {part: checkpoints / name for part, name in names.items()} | {"heads": STOIC_HEADS}
        pack(parts, folder, facts=Facts("stand-in", intended_use="Benchmarks only."))
    return folder


def agreement(theirs: Any, ours: Any) -> dict[str, float]:
    """How far two runs on one scan are apart.

    ``dice`` of the lung masks and ``image_hu``, the largest difference of the cropped images, where they show the same
    slices; for each view the ``cosine`` of the features and their ``relative`` difference ‖Δ‖/‖ref‖; ``probability``,
    the largest difference of any of the six, with the published heads scaled so that no logit of the published run
    leaves ±4.
    """
    masks = theirs["mask"], ours["mask"]
    same = masks[0].shape == masks[1].shape  # else the lung begins or ends in another slice
    out = {
        "dice": 2 * float((masks[0] & masks[1]).sum()) / float(masks[0].sum() + masks[1].sum()) if same else 0.0,
        "image_hu": float(np.abs(theirs["image"].astype(int) - ours["image"]).max()) if same else float("nan"),
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


def agrees(row: dict[str, float], precision: str = "fp32") -> bool:
    """Whether a scan's agreement is within the design's figures for a precision."""
    dice, cosine, relative, probability = AGREEMENT.get(precision, AGREEMENT["int8"])
    return (
        row["dice"] >= dice
        and min(row["cosine_full"], row["cosine_lung"]) >= cosine
        and max(row["relative_full"], row["relative_lung"]) <= relative
        and row["probability"] <= probability
    )


def markdown(results: dict[str, Any]) -> str:
    """The results as a page of tables."""
    rows = results["scans"]
    lines = [
        f"{results['date']}; {results['machine']}",
        "",
        "| scan | ours in | slices used | published s | ours s | time × | start × | memory × | published MB | ours MB "
        "| floor s | ours ÷ floor |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs, ours = row["published"], row["ours"]
        seconds = [run["scans"][0]["seconds"] for run in (theirs, ours)]
        starts = [run["start_seconds"] for run in (theirs, ours)]
        memory = [run["peak_memory_mb"] for run in (theirs, ours)]
        lines.append(
            f"| {row['scan']} | {row['precision']} | {ours['scans'][0]['slices_used']} | {seconds[0]:.1f} "
            f"| {seconds[1]:.1f} | {seconds[1] / seconds[0]:.2f} | {starts[1] / starts[0]:.2f} "
            f"| {memory[1] / memory[0]:.2f} | {memory[0]:.0f} | {memory[1]:.0f} "
            f"| {row['floor_seconds']:.1f} | {seconds[1] / row['floor_seconds']:.2f} |"
        )
    lines += ["", "| scan | run | " + " | ".join(STAGES) + " |", "|---|---|" + "---|" * len(STAGES)]
    for row in rows:
        for run in ("published", "ours"):
            stages = row[run]["scans"][0]["stages"]
            cells = (f"{stages[stage]:.2f}" if stage in stages else "" for stage in STAGES)
            what = f"ours {row['precision']}" if run == "ours" else run
            lines.append(f"| {row['scan']} | {what} | {' | '.join(cells)} |")
    lines += [
        "",
        "| scan | ours in | Dice | image HU | cosine full, lung | ‖Δ‖/‖ref‖ full, lung | probability | as designed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        a = row["agreement"]
        lines.append(
            f"| {row['scan']} | {row['precision']} | {a['dice']:.6f} | {a['image_hu']:.0f} "
            f"| {a['cosine_full']:.7f}, {a['cosine_lung']:.7f} | {a['relative_full']:.1e}, {a['relative_lung']:.1e} "
            f"| {a['probability']:.1e} | {'yes' if agrees(a, row['precision']) else 'no'} |"
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
