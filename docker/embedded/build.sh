#!/usr/bin/env bash
#
# Makes an image of the embedded server that stands in for tensorflow/serving where that does not exist (arm64) or
# cannot be had. build.sh and build_ensemble.sh build on it: TF_SERVING_IMAGE=tfserving-embedded bash build.sh
#
# Usage: bash deploy/embedded/build.sh [--help]
set -Eeuo pipefail

DOOR=${BASH_SOURCE[0]}
HERE=$(CDPATH='' cd -- "$(dirname -- "$DOOR")" && pwd)
ROOT=$(CDPATH='' cd -- "$HERE/../.." && pwd)

# Write a value after := or give the variable in the environment, which wins.
: "${IMAGE_NAME:=tfserving-embedded}"          # what to call the image
: "${PYTHON_IMAGE:=python:3.11-slim-bookworm}" # the image to build on: Python 3.10 to 3.13 with pip, of any platform
: "${DOCKER_ARGS:=}"                           # more arguments for docker build, such as --platform linux/arm64

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"

# What python -m tfserving.server imports; the versions are those of requirements.txt.
PACKAGES='tensorflow google-crc32c grpcio grpcio-health-checking grpcio-reflection numpy protobuf aiohttp orjson pysimdjson uvloop'

main() {
  local command
  case ${1:-} in
    '') ;;
    -h | --help)
      usage
      return
      ;;
    *) misuse "unknown argument $(quoted "$1"); --help shows the usage (values are given as variables)" ;;
  esac
  check_control_characters
  check_image_reference IMAGE_NAME
  check_image_reference PYTHON_IMAGE
  split_words "$DOCKER_ARGS" || misuse "DOCKER_ARGS=$(quoted "$DOCKER_ARGS") has a quote without its partner"
  command -v docker >/dev/null || fail "docker is not installed"
  command=(docker build --tag "$IMAGE_NAME" --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE" --build-arg "PACKAGES=$PACKAGES")
  note "building $IMAGE_NAME on $PYTHON_IMAGE"
  tar -C "$ROOT" --exclude=__pycache__ -cf - tfserving requirements.txt \
    -C "$HERE" Dockerfile tensorflow_model_server tf_serving_entrypoint.sh \
    | "${command[@]}" ${WORDS[@]+"${WORDS[@]}"} - || fail "docker build failed; its message is above"
  note "built $IMAGE_NAME; next: TF_SERVING_IMAGE=$IMAGE_NAME bash build.sh"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
