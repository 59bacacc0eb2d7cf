#!/usr/bin/env bash
#
# Builds an image that serves one model: its newest version, or the versions in MODEL_VERSIONS.
#
# Usage: bash build.sh [--env-file FILE] [--dry-run] [--help]
#
#   --env-file  read variables from FILE, a line NAME=VALUE each; those of the environment take precedence
#   --dry-run   check everything and print the docker command, but do not run it
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)

# Write a value after := or set the variable in the environment, which takes precedence. The defaults of empty
# variables are in lib/settings.sh, for all scripts.
: "${MODEL_NAME:=}"               # the model: its directory in MODELS_DIR, and its name in requests
: "${MODEL_VERSIONS:=}"           # the versions to include, such as 1,2; empty: the newest
: "${MODELS_DIR:=}"               # the directory that contains MODEL_NAME/VERSION/saved_model.pb
: "${IMAGE_NAME:=}"               # the name of the image to build
: "${TF_SERVING_IMAGE:=}"         # the base image; for GPUs, the same tag with the suffix -gpu
: "${HEALTHCHECK_INTERVAL:=}"     # seconds between two health checks; empty: 3
: "${HEALTHCHECK_START_PERIOD:=}" # seconds in which failed checks do not count; empty: 300
: "${DOCKER_ARGS:=}"              # more arguments for docker build, with shell quoting
: "${VERBOSE:=}"                  # 1: show the output of docker build; empty: only if the build fails

MODE=single
# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/image.sh
source "$ROOT/lib/image.sh"
# shellcheck source=lib/python.sh
source "$ROOT/lib/python.sh"

# select_versions: prints the versions to include, ascending, one per line.
select_versions() {
  local version
  if [[ -z $MODEL_VERSIONS ]]; then
    list_versions "$MODELS_DIR/$MODEL_NAME" | tail -n 1
    return
  fi
  for version in ${MODEL_VERSIONS//,/ }; do
    version_number "$version"
    printf '\n'
  done | sort -nu
}

check_model_versions() {
  local LC_ALL=C version
  [[ $MODEL_VERSIONS != *[!0-9,[:space:]]* ]] || reject_value MODEL_VERSIONS 'list of versions' 'integers such as 1,2'
  for version in ${MODEL_VERSIONS//,/ }; do
    is_version "$version" || reject "MODEL_VERSIONS: $version is not a valid version (0-9223372036854775807)"
  done
}

# check_versions: checks graphs and variables, if there is a Python that can read them.
check_versions() {
  if find_python google.protobuf; then
    run_tfserving check "${SOURCES[@]}" >/dev/null || reject "nothing was built; fix the errors above"
  else
    log "note: graphs and variables are not checked, since no Python >= 3.10 with protobuf is in VENV=$VENV or on PATH"
  fi
}

main() {
  local version directory
  parse_build_arguments "$@"
  check_model_name
  set_image_name
  check_image_settings
  check_model_versions
  check_model_directory
  for version in $(select_versions); do
    directory=$(version_directory "$MODELS_DIR/$MODEL_NAME" "$version")
    [[ -n $directory ]] || reject "$(quoted "$MODELS_DIR/$MODEL_NAME") has no version $version" \
      "(found $(list_versions "$MODELS_DIR/$MODEL_NAME" | paste -sd, -)); remove it from MODEL_VERSIONS or export it"
    add_version "$MODEL_NAME" "$version" "$directory" "$MODEL_NAME/$version"
  done
  [[ ${#SOURCES[@]} -le 1 ]] \
    || log "note: the image contains several versions; TensorFlow Serving serves only the newest without a config"
  check_versions
  build_image
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
