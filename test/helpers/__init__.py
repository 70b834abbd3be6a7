"""Set-ups that tests share; fixtures are in conftest.py."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PHANTOM = ROOT / "test/images/ct/phantom.mha"
