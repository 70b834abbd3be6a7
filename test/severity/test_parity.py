"""Agreement with the published package on real scans, where it is installed. About ten minutes on two cores.

BALAITOUS_PEER_PYTHON: the interpreter of an environment with `pip install balaitous==1.2 lungmask==0.2.20`.
BALAITOUS_PEER_CHECKPOINTS: folder with the three network files under their published names (stand-ins do).
"""

import os
import sys
from pathlib import Path

import pytest

from helpers import ROOT

sys.path.insert(0, str(ROOT / "bench"))
from run import agrees, run_side_by_side

SCANS = ("covid_P001_5mm.mha", "lungdx_A0001_native.mha", "lowres_id001.nii.gz")  # the last is not LPS


@pytest.mark.data
@pytest.mark.peer
def test_fp32_agrees_with_the_published_package_on_real_scans(data, tmp_path):
    python, checkpoints = (os.environ.get(f"BALAITOUS_PEER_{name}") for name in ("PYTHON", "CHECKPOINTS"))
    if not python or not checkpoints:
        pytest.skip("needs the published package: set BALAITOUS_PEER_PYTHON and BALAITOUS_PEER_CHECKPOINTS")
    results = run_side_by_side(python, Path(checkpoints), tmp_path, [data / "ct" / scan for scan in SCANS])
    for row in results["scans"]:
        assert agrees(row["agreement"]), row
