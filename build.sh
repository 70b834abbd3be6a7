#!/usr/bin/env bash
# Build the container image. usage: ./build.sh [DOCKER_BUILD_ARGUMENT...]; IMAGE=… names it (default: balaitous)
set -euo pipefail
cd "$(dirname "$0")"
docker build --platform=linux/amd64 --tag "${IMAGE:-balaitous}" "$@" .
