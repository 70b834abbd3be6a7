#!/usr/bin/env bash
# Where the packages come from, and what they are (docs/reliability.md). The first run makes .venv-tools.
#
# usage: tools/supply.sh lock      write every .lock from its .txt: hashes of all files of these versions, on all platforms
#        tools/supply.sh audit     ask PyPI for known vulnerabilities of every locked version
#        tools/supply.sh sbom      write sbom.cdx.json (CycloneDX): the packages in .venv
#        tools/supply.sh licences  write docs/dependencies.md: the licences of the packages in .venv
set -euo pipefail
cd "$(dirname "$0")/.."
source ./setup_venv.sh

# lock NAME [UV_ARGUMENT...]: NAME.lock from NAME.txt. httpx2-jsfetch is for Python in a browser, which torch is not for.
lock() {
  .venv-tools/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
    --custom-compile-command "tools/supply.sh lock" --no-emit-package httpx2-jsfetch "${@:2}" \
    --output-file "$1.lock" "$1.txt"
}

case "${1:-}" in
  lock)
    set_up_tools
    lock tools/requirements
    lock requirements
    # Each of the others is installed after requirements.lock, and holds what is not in there.
    locked=$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package=\1/p' requirements.lock)
    for more in dev invoke extras; do lock "requirements-$more" --constraint requirements.txt $locked; done
    ;;
  audit)
    set_up_tools
    .venv-tools/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
      $(printf -- '--requirement %s ' requirements*.lock tools/requirements.lock)
    ;;
  sbom)
    set_up_tools
    .venv-tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file sbom.cdx.json .venv
    ;;
  licences)
    .venv/bin/python tools/licences.py
    ;;
  *)
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
