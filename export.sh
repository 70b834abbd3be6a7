#!/usr/bin/env bash
# Write what is uploaded to Grand Challenge: the image, balaitous.tar.gz, and the weights, model.tar.gz.
# usage: ./export.sh [BUNDLE_DIR]; default: resources/stoic where it was fetched, else resources/mini
set -euo pipefail
cd "$(dirname "$0")"
image=${IMAGE:-balaitous}
bundle=${1:-resources/mini}
if [ $# = 0 ] && [ -e resources/stoic ]; then bundle=resources/stoic; fi
if [ ! -e "$bundle/bundle.json" ]; then
  echo "ERROR: expected a weight bundle, found no $bundle/bundle.json" >&2
  exit 4
fi
limit=$((10 * 1024 ** 3)) # bytes; what the platform takes

tar --create --gzip --mode=a+rX --file model.tar.gz --directory "$bundle" .
echo "Compressing the image takes some minutes."
docker save "$image" | $(command -v pigz || command -v gzip) >balaitous.tar.gz
bytes=$(wc -c <balaitous.tar.gz)
if [ "$bytes" -gt "$limit" ]; then
  echo "ERROR: expected an image of at most $limit bytes, found $bytes: bake fewer bundles from resources/ in" >&2
  exit 1
fi
ls -lh balaitous.tar.gz model.tar.gz
