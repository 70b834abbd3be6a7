"""Jobs for the container's server, brought as the platform brings them, and the check of what it answers.

usage: python invoke_jobs.py make JOBS      write JOBS/NAME/input: two scans and a file that is none
       python invoke_jobs.py run JOBS URL   call the server with each, compare with JOBS/NAME/expected

Needs the standard library only: ./test.sh runs it in the container, with the server's /input and /output.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

PHANTOM = Path(__file__).parents[1] / "images/ct/phantom.mha"
INPUT, OUTPUT = Path("/input"), Path("/output")
HEALTHY_SECONDS = 300  # the platform's patience, in all and for a call
HEALTH_CALL_SECONDS = 10
TOLD = [
    {"socket": {"slug": "ct-image", "relative_path": "images/ct"}, "image": {"name": "P002.mha"}},
    {"socket": {"slug": "patient-age", "relative_path": "patient-age.json"}, "value": 81},
]
PLAN = ("phantom", "drawn", "none", "phantom")  # one that fails between those that do not


def make(jobs: Path) -> None:
    for name in set(PLAN):
        (jobs / name / "input/images/ct").mkdir(parents=True)
    shutil.copy(PHANTOM, jobs / "phantom/input/images/ct")
    (jobs / "drawn/input/inputs.json").write_text(json.dumps(TOLD))  # its scan: balaitous.synthetic.phantom
    (jobs / "none/input/images/ct/none.mha").write_text("not an image")


def run(jobs: Path, url: str) -> None:
    wait_until_healthy(url)
    for name in PLAN:
        empty(INPUT)
        empty(OUTPUT)
        shutil.copytree(jobs / name / "input", INPUT, dirs_exist_ok=True)
        status = call("POST", f"{url}/invoke", timeout=HEALTHY_SECONDS)
        found = answers(OUTPUT)
        expected = answers(jobs / name / "expected") if name != "none" else {}
        if (status, found) != (201 if expected else 500, expected):
            sys.exit(f"job {name}: expected {expected} as from a run of its own, found {found}, status {status}")
        print(f"job {name}: {status}, as from a run of its own: {found}")


def wait_until_healthy(url: str) -> None:
    end = time.monotonic() + HEALTHY_SECONDS
    while (status := call("GET", f"{url}/health", HEALTH_CALL_SECONDS)) != 200:
        if time.monotonic() > end:
            sys.exit(f"expected 200 from {url}/health within {HEALTHY_SECONDS} s, found {status}")
        time.sleep(0.5)


def call(method: str, address: str, timeout: float) -> int | None:
    """Status of the answer; None where nothing listens yet."""
    try:
        return urlopen(Request(address, method=method), timeout=timeout).status
    except HTTPError as error:
        return error.code
    except URLError:
        return None


def empty(folder: Path) -> None:
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def answers(folder: Path) -> dict:
    """Every number that was written, and what is known of the scan."""
    found = {file.name: json.loads(file.read_text()) for file in sorted(folder.glob("probability-*.json"))}
    for case in json.loads((folder / "results.json").read_text())["cases"]:
        if case["status"] == "ok":
            found |= {key: case[key] for key in ("image_name", "age_years", "sex")}
    return found


if __name__ == "__main__":
    {"make": make, "run": run}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
