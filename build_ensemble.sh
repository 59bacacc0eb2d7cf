#!/usr/bin/env bash
#
# Builds a multi-model image, which serves every model in MODELS_CONFIG. It contains the versions that the version
# policies select, and the config. A config in JSON is converted to protobuf text format, which the server reads.
#
# Usage: bash build_ensemble.sh [--env-file FILE] [--dry-run] [--help]
#
#   --env-file  read variables from FILE, a line NAME=VALUE each; those of the environment take precedence
#   --dry-run   check everything and print the docker command, but do not run it
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)

# Write a value after := or set the variable in the environment, which takes precedence. The defaults of empty
# variables are in lib/settings.sh, for all scripts.
: "${MODELS_CONFIG:=}"            # the models with their version policies and labels
: "${MODELS_DIR:=}"               # the directory on this machine for /models in a base_path
: "${IMAGE_NAME:=}"               # the name of the image to build
: "${TF_SERVING_IMAGE:=}"         # the base image; for GPUs, the same tag with the suffix -gpu
: "${HEALTHCHECK_INTERVAL:=}"     # seconds between two health checks; empty: 3
: "${HEALTHCHECK_START_PERIOD:=}" # seconds in which failed checks do not count; empty: 300
: "${DOCKER_ARGS:=}"              # more arguments for docker build, with shell quoting
: "${VERBOSE:=}"                  # 1: show the output of docker build; empty: only if the build fails

MODE=multi
# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/image.sh
source "$ROOT/lib/image.sh"
# shellcheck source=lib/python.sh
source "$ROOT/lib/python.sh"

add_selected_versions() {
  local selected name version source base
  [[ -f $MODELS_CONFIG && -r $MODELS_CONFIG ]] \
    || reject "MODELS_CONFIG=$(quoted "$MODELS_CONFIG") is not a readable file; write one, or restore the example:" \
      "git checkout models/models.config"
  selected=$(run_tfserving select "--config=$MODELS_CONFIG" "--models-dir=$MODELS_DIR") \
    || reject "nothing was built; fix the errors above (bash quickstart.sh creates the example models)"
  while IFS=$'\t' read -r name version source; do
    base=${source%/*} # in MODELS_DIR, as select checks
    add_version "$name" "$version" "$source" "${base#"$MODELS_DIR"/}/$version"
  done <<<"$selected"
}

main() {
  parse_build_arguments "$@"
  set_image_name
  check_image_settings
  require_python google.protobuf
  add_selected_versions
  CONFIG=(cat -- "$MODELS_CONFIG")
  ! is_json "$MODELS_CONFIG" || CONFIG=(run_tfserving format "--config=$MODELS_CONFIG")
  build_image
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
