"""Compare what a job on test/ wrote with test/container/expected_output.json.

usage: python test/container/compare_outputs.py OUTPUT_DIR [--accept]

``--accept`` makes what was written the expected. Needs Python only, so that it runs in the container too.
"""

import json
import sys
from pathlib import Path

EXPECTED = Path(__file__).with_name("expected_output.json")
FILES = {
    "probability-covid.json": "probability_covid",
    "probability-covid-19.json": "probability_covid",
    "probability-severe-covid.json": "probability_severe",
    "probability-severe-covid-19.json": "probability_severe",
}
TOLERANCE = (
    0.002  # fp32: processors and threads add in different orders, and a voxel at the lung's edge may change side
)
TOLERANCE_HALF = 0.005  # fp16 and bf16, on a GPU


def main(output_dir: Path, accept: bool) -> int:
    """Exit code: 0 where everything agrees."""
    (case,) = json.loads((output_dir / "results.json").read_text())["cases"]
    provenance = case["provenance"]
    found = {
        "bundle": provenance["bundle"],
        "bundle_sha256": provenance["bundle_sha256"],
        "probability_covid": case["probability_covid"],
        "probability_severe": case["probability_severe"],
    }
    if accept:
        EXPECTED.write_text(json.dumps(found, indent=2) + "\n")
        return 0

    expected = json.loads(EXPECTED.read_text())
    tolerance = TOLERANCE if provenance["precision"] == "fp32" else TOLERANCE_HALF
    mismatches = [
        f"{key}: expected {expected[key]}, found {found[key]}"
        for key in ("bundle", "bundle_sha256")
        if found[key] != expected[key]
    ]
    for name, key in FILES.items():
        number = json.loads((output_dir / name).read_text())
        if not isinstance(number, float) or not abs(number - expected[key]) <= tolerance:
            mismatches.append(f"{name}: expected {expected[key]} ± {tolerance}, found {number}")
    print("\n".join(mismatches) or f"as expected, within {tolerance} ({provenance['precision']})")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), accept="--accept" in sys.argv[2:]))
