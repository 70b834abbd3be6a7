#!/usr/bin/env bash
# Build the image in both modes, run it as Grand Challenge would, and compare its answers with test/container/expected_output.json.
# usage: ./test.sh [DOCKER_BUILD_ARGUMENT...]; IMAGE=… names the image (default: balaitous)
set -euo pipefail
cd "$(dirname "$0")"
image=${IMAGE:-balaitous}
./build.sh "$@" --build-arg API_METHOD=exec

gpu=
if docker run --rm --gpus all --entrypoint true "$image" >/dev/null 2>&1; then gpu=--gpus=all; fi
# The expected numbers are those of the bundle mini; an image with stoic baked in would take that first.
weights=
if [ -e resources/stoic ]; then weights=--env=BALAITOUS_WEIGHTS=mini; fi
output=
trap 'docker volume rm --force $output >/dev/null' EXIT

# job NAME DOCKER_RUN_FLAG...: one job with a fresh /output, and the comparison, which needs no Python on this machine.
job() {
  echo "== $1"
  shift
  output=$(docker volume create)
  docker run --rm $gpu "$@" --volume "$PWD/test:/input:ro" --volume "$output:/output" "$image"
  docker run --rm --network none --volume "$PWD/test:/input:ro" --volume "$output:/output:ro" --entrypoint python \
    "$image" /input/container/compare_outputs.py /output
  docker volume rm "$output" >/dev/null
}

mounts=(--platform=linux/amd64 --volume /tmp --volume "$PWD/resources/mini:/opt/ml/model:ro")
today=("${mounts[@]}" --network none)
job "flags of 2021, weights baked in" --memory=16g --memory-swap=16g --cap-drop=ALL --security-opt=no-new-privileges \
  --network none --shm-size=128m --pids-limit 256 $weights
job "flags of today, model tarball on /opt/ml/model" "${today[@]}"
job "flags of today, another user, read-only root" "${today[@]}" --read-only --user 12345:12345
# The same image trains and evaluates: heads on a cohort of phantoms, and their predictions as a submission.
echo "== training and evaluation"
cohort=$(docker volume create) trained=$(docker volume create) submitted=$(docker volume create)
output=$(docker volume create)
trap 'docker volume rm --force $output $cohort $trained $submitted >/dev/null' EXIT
python=(docker run --rm --network none --workdir /opt/balaitous --volume "$PWD/test:/test:ro" --entrypoint python)
"${python[@]}" --volume "$cohort:/input" "$image" -m balaitous.training.cohorts --scans 40 --seed 1 --spacing 3 3 6 --out /input
docker run --rm $gpu --network none $weights --shm-size=128m --pids-limit 256 \
  --volume "$cohort:/input:ro" --volume "$trained:/output" "$image" train | tee >(cat >&2) | tail -1 | grep -qx "Training completed."
"${python[@]}" --volume "$trained:/trained:ro" --volume "$submitted:/input" "$image" /test/container/submission.py make /trained /input
docker run --rm --network none --volume "$submitted:/input:ro" --volume "$output:/output" \
  --volume "$cohort:/opt/ml/input/data/ground_truth:ro" "$image" evaluate
"${python[@]}" --volume "$trained:/trained:ro" --volume "$output:/output:ro" "$image" /test/container/submission.py check /trained /output
docker run --rm --network none --volume "$PWD/test:/input:ro" --volume "$trained:/trained:ro" \
  --env BALAITOUS_WEIGHTS=/trained/bundle "$image" /input /tmp/answers >/dev/null
# The server: other layers on top of the same, a network without a way out, jobs that the caller puts into /input.
echo "== several jobs in one server"
IMAGE=$image-invoke ./build.sh "$@" --build-arg API_METHOD=invoke
label=$(docker inspect --format '{{index .Config.Labels "org.grand-challenge.api-method"}}' "$image-invoke")
[ "$label" = invoke ] || { echo "ERROR: expected the label api-method=invoke, found '$label'" >&2; exit 1; }
jobs=$(docker volume create) served_input=$(docker volume create) served_output=$(docker volume create)
network=$(docker network create --internal "balaitous-test-$$")
server=
trap 'docker rm --force --volumes $server >/dev/null 2>&1 || true
  docker network rm $network >/dev/null
  docker volume rm --force $output $cohort $trained $submitted $jobs $served_input $served_output >/dev/null' EXIT
"${python[@]}" --volume "$jobs:/output" "$image" /test/container/invoke_jobs.py make /output
"${python[@]}" --volume "$jobs:/output" "$image" -m balaitous.synthetic.phantom --seed 9 --spacing 2.5 2.5 5 \
  --out /output/drawn/input/images/ct/drawn.mha
for name in phantom drawn; do
  docker run --rm $gpu "${today[@]}" --volume "$jobs:/output" "$image" "/output/$name/input" "/output/$name/expected"
done
server=$(docker run --detach $gpu "${mounts[@]}" --network "$network" --network-alias server --read-only --user 12345:12345 \
  --cap-drop=ALL --security-opt=no-new-privileges --shm-size=128m --pids-limit 256 \
  --volume "$served_input:/input:ro" --volume "$served_output:/output" "$image-invoke")
docker run --rm --user root --network "$network" --volume "$PWD/test:/test:ro" --volume "$jobs:/jobs:ro" \
  --volume "$served_input:/input" --volume "$served_output:/output" --entrypoint python "$image" \
  /test/container/invoke_jobs.py run /jobs http://server:4743 || { docker logs "$server" >&2; exit 1; }
docker logs "$server"
docker logs "$server" 2>&1 >/dev/null | tail -1 | grep -q "^ERROR: .*none.mha" # the job that failed
docker stop --time 5 "$server" >/dev/null
code=$(docker inspect --format '{{.State.ExitCode}}' "$server")
[ "$code" = 0 ] || { echo "ERROR: expected the server to end within 5 s of SIGTERM, found exit code $code" >&2; exit 1; }
echo "The container passed its tests."
