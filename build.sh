#!/usr/bin/env bash
#
# Bakes one model into an image: its newest version, or those of MODEL_VERSIONS.
#
# Usage: bash build.sh [--dry-run] [--help]
#
#   --dry-run   check everything and print the docker command, without running it
set -Eeuo pipefail

DOOR=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$DOOR")" && pwd)

# Write a value after := or give the variable in the environment, which wins. What is left empty has its default
# in lib/settings.sh, where a value holds for every script.
: "${MODEL_NAME:=}"       # the model: its directory under MODELS_DIR, and the name that clients use
: "${MODEL_VERSIONS:=}"   # the versions to bake, such as 1,2; empty: the newest
: "${MODELS_DIR:=}"       # where MODEL_NAME/VERSION/saved_model.pb lies
: "${IMAGE_NAME:=}"       # what to call the image
: "${TF_SERVING_IMAGE:=}" # the image to build on; for GPUs the same tag with -gpu at its end
: "${DOCKER_ARGS:=}"      # more arguments for docker build, quoted as in a shell

MODE=single
# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/image.sh
source "$ROOT/lib/image.sh"

# The versions to bake, ascending, one a line.
wanted_versions() {
  local version
  if [[ -z $MODEL_VERSIONS ]]; then
    versions_of "$MODELS_DIR/$MODEL_NAME" | tail -n 1
    return
  fi
  for version in ${MODEL_VERSIONS//,/ }; do
    version_number "$version"
    printf '\n'
  done | sort -nu
}

check_model_versions() {
  local LC_ALL=C version
  [[ $MODEL_VERSIONS != *[!0-9,[:space:]]* ]] \
    || misuse "MODEL_VERSIONS=$(quoted "$MODEL_VERSIONS") is no list of versions; give integers such as 1,2"
  for version in ${MODEL_VERSIONS//,/ }; do
    is_version "$version" || misuse "MODEL_VERSIONS: $version is more than a version can be (64 bits)"
  done
}

main() {
  local version directory
  build_arguments "$@"
  check_model_name "$MODEL_NAME" MODEL_NAME
  setting_of_image
  check_image_settings
  check_model_versions
  check_model_directory "$MODEL_NAME"
  for version in $(wanted_versions); do
    directory=$(version_directory "$MODELS_DIR/$MODEL_NAME" "$version")
    [[ -n $directory ]] || misuse "no version $version of $MODEL_NAME in $(quoted "$MODELS_DIR/$MODEL_NAME");" \
      "there is $(versions_of "$MODELS_DIR/$MODEL_NAME" | tr '\n' ' ')"
    add_version "$MODEL_NAME" "$version" "$directory" "$MODEL_NAME/$version"
  done
  [[ ${#SOURCES[@]} -le 1 ]] \
    || note "note: several versions are baked, TensorFlow Serving serves the newest of them unless a config asks for more"
  build_image
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
