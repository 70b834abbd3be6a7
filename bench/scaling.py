"""How time and memory grow: with the slices of a scan, and with the scans in flight.

usage: python bench/scaling.py --out DIR [--bundle BUNDLE] [--precision fp32] [--copies 8] SCAN

Slices: SCAN as it is, then as tall two and four times over (every axial slice repeated), each in a fresh process.
Workers: a folder of copies of SCAN with one, two and four scans in flight. Writes OUT/scaling.json and OUT/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from balaitous.ct.volume import SPACING_MM, read_ct, resample, write_mha

BENCH = Path(__file__).parent
TIMES_AS_TALL = (1, 2, 4)
WORKERS = (1, 2, 4)

# "Memory does not grow with the slices": four times as many may add this much, which is the volume itself (in whole
# numbers, in U-Net crops, in labels and masks), not the networks' activations.
MOST_GROWTH_MB = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bundle", default="mini")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("scan", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results = {
        "bundle": options.bundle,
        "precision": options.precision,
        "slices": [
            with_slices(options.scan, times, options.bundle, options.precision, options.out) for times in TIMES_AS_TALL
        ],
        "workers": [
            with_workers(options.scan, options.copies, workers, options.bundle, options.precision, options.out)
            for workers in WORKERS
        ],
    }
    (options.out / "scaling.json").write_text(json.dumps(results, indent=1) + "\n")
    table = markdown(results)
    (options.out / "scaling.md").write_text(table)
    print(table)


def with_slices(scan: Path, times: int, bundle: str, precision: str, out: Path) -> dict[str, Any]:
    """Time and peak memory of a scan that is `times` as tall."""
    ct = resample(read_ct(scan), SPACING_MM)
    tall = out / f"tall_{times}.mha"
    hu = np.repeat(ct.hu, times, axis=0)
    write_mha(tall, replace(ct, hu=hu, grid=replace(ct.grid, shape=hu.shape)))
    run = out / f"run_{times}"
    subprocess.run([sys.executable, BENCH / "ours.py", run, bundle, precision, tall], check=True)
    facts = json.loads((run / "run.json").read_text())
    row = facts["scans"][0]
    return {
        **{key: row[key] for key in ("slices", "slices_used", "seconds", "stages")},
        "peak_memory_mb": facts["peak_memory_mb"],
    }


def with_workers(scan: Path, copies: int, workers: int, bundle: str, precision: str, out: Path) -> dict[str, Any]:
    """Scans a minute over a folder of copies, loading of the weights apart."""
    folder = out / "copies"
    folder.mkdir(exist_ok=True)
    for number in range(copies):
        shutil.copyfile(scan, folder / f"copy_{number}_{scan.name}")
    report, table = out / f"workers_{workers}.json", out / f"workers_{workers}.csv"
    table.unlink(missing_ok=True)
    arguments = ["--weights", bundle, "--precision", precision, "--workers", str(workers)]
    command = [sys.executable, "-m", "balaitous", "predict", folder, "--out", table, "--report", report, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    summary = json.loads(report.read_text())["summary"]
    return {"workers": workers, "scans": copies, "scans_a_minute": summary["scans_a_minute"]}


def markdown(results: dict[str, Any]) -> str:
    """The results as tables."""
    first = results["slices"][0]
    lines = [
        f"bundle {results['bundle']}, {results['precision']}",
        "",
        "| slices after resampling | slices used | s | s a slice | peak MB | grown MB | within the bound |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["slices"]:
        grown = row["peak_memory_mb"] - first["peak_memory_mb"]
        lines.append(
            f"| {row['slices']} | {row['slices_used']} | {row['seconds']:.1f} | {row['seconds'] / row['slices']:.2f} "
            f"| {row['peak_memory_mb']:.0f} | {grown:.0f} | {'yes' if grown <= MOST_GROWTH_MB else 'no'} |"
        )
    lines += ["", "| scans in flight | scans a minute |", "|---|---|"]
    lines += [f"| {row['workers']} | {row['scans_a_minute']:.1f} |" for row in results["workers"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
