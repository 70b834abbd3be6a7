#!/usr/bin/env bash
# Everything that is checked before a commit: format, lint, types, the whole test suite.
#
# usage: ./check.sh [PYTEST_ARGUMENT...]
#        ./check.sh -m "not slow"     without kills, Ray, int8, trainings and whole jobs: about four minutes
# The first run installs what is needed into .venv.
set -euo pipefail
cd "$(dirname "$0")"
source ./setup_venv.sh
set_up_venv requirements{,-dev,-invoke,-extras}.lock
status=0
.venv/bin/python -m ruff format --check --quiet . || status=1
.venv/bin/python -m ruff check --quiet . || status=1
.venv/bin/python -m mypy --no-error-summary || status=1
# Two tests at a time, slow files first, with a thread each: threads of two processes that share two cores wait for each other.
OMP_NUM_THREADS=1 .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@" || status=1
exit "$status"
