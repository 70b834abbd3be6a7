#!/usr/bin/env bash
# Predict CT scans on this machine, without Docker.
#
# usage: ./run.sh [INPUT_DIR [OUTPUT_DIR]]
#   INPUT_DIR    a folder with scans (.mha, .nii.gz, .nrrd, …, DICOM folders); default: the phantom in test/images/ct
#   OUTPUT_DIR   where probability-*.json and results.json go; default: ./output
# The first run installs what is needed into .venv. Exit codes: 0 done, 3 input, 4 weights, 5 some of several failed.
set -euo pipefail
case "${1:-}" in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit ;; esac
here=$(dirname "$0")
source "$here/setup_venv.sh"
set_up_venv requirements.lock requirements-dev.lock
exec "$here/.venv/bin/python" "$here/process.py" "${1:-$here/test/images/ct}" "${2:-output}"
