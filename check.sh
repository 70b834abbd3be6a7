#!/usr/bin/env bash
# Everything that is checked before a commit: format, lint, types, the whole test suite.
#
# usage: ./check.sh [PYTEST_ARGUMENT...]
# The first run installs what is needed into .venv.
set -euo pipefail
cd "$(dirname "$0")"
source ./setup_venv.sh
set_up_venv requirements.txt requirements-extras.txt
status=0
.venv/bin/python -m ruff format --check --quiet . || status=1
.venv/bin/python -m ruff check --quiet . || status=1
.venv/bin/python -m mypy --no-error-summary || status=1
.venv/bin/python -m pytest "$@" || status=1
exit "$status"
