"""Regenerate test/severity/golden.json, the values that test_pipeline.py expects of the phantom with the bundle mini.

    python test/severity/make_golden.py

Do so only when weights or method changed on purpose, and say so in CHANGELOG.md.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from balaitous import Balaitous
from balaitous.synthetic.phantom import make_phantom

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

if __name__ == "__main__":
    from helpers.phantoms import COMMITTED

    prediction = Balaitous("mini", device="cpu").predict(HERE.parent / "images/ct/phantom.mha")
    golden = {
        "made_with": {package: version(package) for package in ("torch", "timm", "SimpleITK", "numpy", "scipy")},
        "bundle_sha256": prediction.provenance.bundle_sha256,
        "true_lung_volume_litres": make_phantom(**COMMITTED).lung_ml / 1000,
        "lung_volume_litres": prediction.lung_volume_litres,
        "image_shape": list(prediction.image.shape),
        "image_mean_hu": float(prediction.image.mean()),
        "probabilities": dict(prediction.probabilities),
        "features": {view: [round(float(value), 5) for value in each] for view, each in prediction.features.items()},
    }
    (HERE / "golden.json").write_text(json.dumps(golden) + "\n")
