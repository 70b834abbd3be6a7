"""Does a server that serves for days grow? Hundreds of jobs in one process, with its memory after each.

usage: python bench/soak.py --out DIR [--rounds 125]

Starts the container's server on a port of this machine and gives it, in each round, four small phantoms and a file that
is no image, each as a job with a fresh /input and /output. After every job: resident memory, open descriptors and
threads of the server with the process that reads for it, and whether the digits are those of the first time. Fails if
they have grown between the first rounds after the warm-up and the last by more than the bounds below, or if it answers
other digits. Writes DIR/soak.json and DIR/soak.md.
Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

from balaitous.container.answers import PROBABILITY_FILES
from balaitous.ct.volume import write_mha
from balaitous.synthetic.phantom import make_phantom

ROOT = Path(__file__).parent.parent
SEEDS = (1, 2, 3, 4)
MIDDLE = slice(8, 16)  # slices of the chest: lungs that the quality checks let pass
NO_IMAGE = "none.mha"
START_SECONDS = 120

# Allocators and caches of the libraries fill up in the first jobs; from then on nothing may.
WARM_UP_ROUNDS = 10
COMPARED_ROUNDS = 20  # at the beginning, after the warm-up, and at the end: the median of each
MOST_GROWTH_MB = 8.0  # over 375 phantoms: a quarter of each one's voxels (94 kB), if it were kept, would be more
# The proportional share (PSS) is shown only: it changes with every process that maps the same libraries.
MOST_GROWTH = {"rss_mb": MOST_GROWTH_MB, "pss_mb": None, "descriptors": 0, "threads": 0}

# The real entry, as the container starts it, but on a port that is free here.
SERVE = """
import sys, process
from balaitous.container import server
server.PORT = int(sys.argv[1])
sys.exit(process.main(["invoke", *sys.argv[2:]]))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=125)
    options = parser.parse_args()
    least = WARM_UP_ROUNDS + 2 * COMPARED_ROUNDS
    if options.rounds < least:
        parser.error(f"--rounds must be at least {least}: a warm-up, and two stretches to compare")
    options.out.mkdir(parents=True, exist_ok=True)
    samples = soak(make_scans(options.out / "scans"), options.rounds, options.out)
    result = judge(samples)
    (options.out / "soak.json").write_text(json.dumps(result | {"samples": samples}, indent=1) + "\n")
    table = markdown(result)
    (options.out / "soak.md").write_text(table)
    print(table)
    for failure in result["failures"]:
        print(f"ERROR: {failure}", file=sys.stderr)
    return 1 if result["failures"] else 0


def make_scans(folder: Path) -> list[Path]:
    """Coarse phantoms, and a file that only says it is an image."""
    folder.mkdir(exist_ok=True)
    for seed in SEEDS:
        ct = make_phantom(seed, spacing_mm=(4, 4, 10), size=(84, 70, 22)).ct
        hu = ct.hu[MIDDLE]
        write_mha(folder / f"phantom{seed}.mha", replace(ct, hu=hu, grid=replace(ct.grid, shape=hu.shape)))
    (folder / NO_IMAGE).write_text("not an image")
    return [*(folder / f"phantom{seed}.mha" for seed in SEEDS), folder / NO_IMAGE]


def soak(scans: list[Path], rounds: int, out: Path) -> list[dict[str, Any]]:
    """One sample a job: what came back, and what the server holds afterwards."""
    input_dir, output_dir = out / "input", out / "output"
    output_dir.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (out / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(port), input_dir, output_dir],
            cwd=ROOT,
            env=os.environ | {"BALAITOUS_WEIGHTS": "mini"},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    samples = []
    try:
        wait_until_healthy(server, port)
        for number in range(rounds):
            for scan in scans:
                shutil.rmtree(input_dir, ignore_errors=True)
                (input_dir / "images/ct").mkdir(parents=True)
                shutil.copy(scan, input_dir / "images/ct")
                for file in output_dir.iterdir():
                    file.unlink()
                start = time.monotonic()
                status = call(port, "POST", "/invoke")
                seconds = round(time.monotonic() - start, 3)
                sample = {"round": number, "scan": scan.name, "status": status, "seconds": seconds}
                samples.append(sample | {"answer": answer(output_dir)} | held(server.pid))
            if (number + 1) % 10 == 0:
                print(f"round {number + 1} of {rounds}: {samples[-1]}", flush=True)
    finally:
        server.terminate()
        server.wait()
    return samples


def wait_until_healthy(server: subprocess.Popen, port: int) -> None:
    """Return when the server answers; raise if it ends, or does not within `START_SECONDS`."""
    end = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            if call(port, "GET", "/health") == 200:
                return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise RuntimeError("the server did not start: see server.log")


def call(port: int, method: str, path: str) -> int:
    """Status of one call, on a connection of its own as the platform makes it."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        return connection.getresponse().status
    finally:
        connection.close()


def answer(output_dir: Path) -> dict[str, str]:
    """The text of the probability files that are there: every digit."""
    return {name: (output_dir / name).read_text() for name in PROBABILITY_FILES if (output_dir / name).exists()}


def held(pid: int) -> dict[str, float]:
    """What a process and those that it started hold now, in sum."""
    process = Path("/proc", str(pid))
    sizes = dict(line.split(":") for line in (process / "smaps_rollup").read_text().splitlines()[1:])
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    own = {
        "pss_mb": round(int(sizes["Pss"].split()[0]) / 1024, 2),
        "rss_mb": round(int(sizes["Rss"].split()[0]) / 1024, 2),
        "descriptors": len(list((process / "fd").iterdir())),
        "threads": int(status["Threads"]),
    }
    for thread in (process / "task").iterdir():
        for child in (thread / "children").read_text().split():
            own = {quantity: round(value + held(int(child))[quantity], 2) for quantity, value in own.items()}
    return own


def judge(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Growth from the first rounds after the warm-up to the last, and what is wrong with it, or with the answers."""
    last_round = samples[-1]["round"]
    early = [each for each in samples if 0 <= each["round"] - WARM_UP_ROUNDS < COMPARED_ROUNDS]
    late = [each for each in samples if last_round - each["round"] < COMPARED_ROUNDS]
    growth: dict[str, dict[str, float | None]] = {}
    failures = []
    for quantity, most in MOST_GROWTH.items():
        values = [each[quantity] for each in samples]
        before, after = (median(each[quantity] for each in stretch) for stretch in (early, late))
        growth[quantity] = {
            "first": values[0],
            "after_warm_up": before,
            "at_the_end": after,
            "growth": round(after - before, 2),
            "most_growth": most,
            "highest": max(values),
        }
        if most is not None and after - before > most:
            failures.append(f"expected {quantity} to grow by at most {most}, found {before} and then {after}")
    first: dict[str, dict[str, str]] = {}
    for each in samples:
        expected_status = 500 if each["scan"] == NO_IMAGE else 201
        if each["status"] != expected_status:
            failures.append(f"round {each['round']}, {each['scan']}: {each['status']}, expected {expected_status}")
        if each["answer"] != first.setdefault(each["scan"], each["answer"]):
            failures.append(f"round {each['round']}, {each['scan']}: other digits than the first time")
    worked = [each for each in samples if each["status"] == 201]
    return {
        "jobs": len(samples),
        "answered": len(worked),
        "median_seconds": median(each["seconds"] for each in worked) if worked else None,
        "growth": growth,
        "failures": failures,
    }


def markdown(result: dict[str, Any]) -> str:
    """The result as a table."""
    columns = ("first", "after_warm_up", "at_the_end", "growth", "most_growth", "highest")
    seconds = redacted(result["median_seconds"])
    lines = [
        f"{result['jobs']} jobs, {result['answered']} of them answered; {seconds} s each (median)",
        "",
        f"| | {' | '.join(columns).replace('_', ' ')} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for quantity, facts in result["growth"].items():
        lines.append(f"| {quantity.replace('_', ' ')} | {' | '.join(redacted(facts[each]) for each in columns)} |")
    return "\n".join(lines) + "\n"


def redacted(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


if __name__ == "__main__":
    sys.exit(main())
