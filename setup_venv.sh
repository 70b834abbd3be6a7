# Sourced by run.sh and check.sh: set_up_venv REQUIREMENTS… makes .venv beside this file, with these pinned requirements
# and this package in it.
# PYTHON=… chooses the Python to make it with; else the first of 3.11 or newer that runs.

find_python() {
  local candidate found=
  for candidate in "${PYTHON:-python3.11}" python3.11 python3.12 python3.13 python3.14 python3 python; do
    # A name on the PATH may be a shim that does not run, and Debian's Python comes without ensurepip: try both.
    "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
    found=$candidate
    "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1 || continue
    command -v "$candidate"
    return
  done
  if [ -n "$found" ]; then
    local package
    package=$("$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    echo "ERROR: $found is here, but cannot make virtual environments. On Debian or Ubuntu: apt-get install $package" >&2
  else
    echo "ERROR: expected Python 3.11 or newer, found none. Install it, or name it: PYTHON=/path/to/python3.11 $0" >&2
  fi
  return 1
}

set_up_venv() (
  cd "$(dirname "${BASH_SOURCE[0]}")"
  for requirements in "$@"; do install_once "$requirements"; done
)

install_once() {
  local stamp=.venv/installed-$1 wanted
  wanted=$(pwd && cat "$1" pyproject.toml)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    "$python" -m venv --clear .venv
  fi
  echo "Installing $1 into .venv: a few minutes and about 7 GB in all, the first time and when it changes."
  .venv/bin/python -m pip install -qq --disable-pip-version-check --requirement "$1"
  .venv/bin/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
  echo "$wanted" >"$stamp"
}
