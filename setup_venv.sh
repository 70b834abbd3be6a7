# Sourced by run.sh, check.sh and tools/supply.sh: set_up_venv LOCK… makes .venv beside this file, with these locked
# requirements and this package in it; set_up_tools makes .venv-tools. No file gets in whose hash is not in a .lock.
# PYTHON=… chooses the Python to make them with; else the first of 3.11 or newer that runs.

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

# Installing is --no-deps, because a lock has them all, and --no-build-isolation, because that would fetch what to build with
# past the lock.
set_up_venv() (
  cd "$(dirname "${BASH_SOURCE[0]}")"
  for lock in "$@"; do install_once .venv "$lock" --require-hashes --requirement "$lock"; done
  install_once .venv pyproject.toml --editable .
)

set_up_tools() (
  cd "$(dirname "${BASH_SOURCE[0]}")"
  install_once .venv-tools tools/requirements.lock --require-hashes --requirement tools/requirements.lock
)

# install_once VENV FILE PIP_ARGUMENT...: pip install, unless that was done with FILE as it is now.
install_once() {
  local venv=$1 file=$2 stamp wanted
  stamp=$venv/installed-$(basename "$file")
  wanted=$(pwd && cat "$file")
  if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
  if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    "$python" -m venv --clear "$venv"
  fi
  if [ "$file" = requirements.lock ]; then
    echo "Installing $file into $venv: a few minutes and about 7 GB, the first time and when it changes."
  fi
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation "${@:3}"
  echo "$wanted" >"$stamp"
}
