"""Fuzz targets: hostile and odd files against the reader. One file a target; `run.py` runs them."""
