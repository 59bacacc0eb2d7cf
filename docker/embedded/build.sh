#!/usr/bin/env bash
#
# Builds an image of the embedded server that replaces tensorflow/serving where that does not exist (arm64) or cannot
# be pulled. To build on it: TF_SERVING_IMAGE=tfserving-embedded bash build.sh
#
# Usage: bash docker/embedded/build.sh [--help]
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
DIRECTORY=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)
ROOT=$(CDPATH='' cd -- "$DIRECTORY/../.." && pwd)

# Write a value after := or set the variable in the environment, which takes precedence. The defaults of empty
# variables are in lib/settings.sh, for all scripts.
: "${IMAGE_NAME:=}"   # the name of the image to build
: "${PYTHON_IMAGE:=}" # the base image: Python 3.10 to 3.13 with pip, for any platform
: "${DOCKER_ARGS:=}"  # more arguments for docker build, such as --platform linux/arm64
: "${VERBOSE:=}"      # 1: show the output of docker build; empty: only if the build fails

MODE=embedded
# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/image.sh
source "$ROOT/lib/image.sh"

main() {
  local argument
  for argument; do
    handle_option "$argument"
  done
  set_image_name
  check_variables
  check_image_reference IMAGE_NAME
  check_image_reference PYTHON_IMAGE
  [[ $IMAGE_NAME != "$PYTHON_IMAGE" ]] \
    || reject "IMAGE_NAME=$(quoted "$IMAGE_NAME") is the base image; set IMAGE_NAME to another name"
  check_verbose
  split_docker_args
  require_docker
  identify_base "$PYTHON_IMAGE"
  tar -C "$ROOT" --exclude=__pycache__ --exclude='.*' -cf - tfserving \
    -C "$DIRECTORY" Dockerfile requirements.txt tensorflow_model_server tf_serving_entrypoint.sh \
    | run_docker_build "$IMAGE_NAME from $PYTHON_IMAGE" --tag "$IMAGE_NAME" \
      --build-arg "PYTHON_IMAGE=$PYTHON_IMAGE" ${BASE[@]+"${BASE[@]}"} \
      ${WORDS[@]+"${WORDS[@]}"} -
  log "next: TF_SERVING_IMAGE=$IMAGE_NAME bash build.sh"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
