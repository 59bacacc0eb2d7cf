#!/usr/bin/env bash
#
# Bakes every model that MODELS_CONFIG names into one image, with the versions that its policies can serve, and
# the config itself. A config written as JSON is converted to protobuf text format, which the server reads.
#
# Usage: bash build_ensemble.sh [--dry-run] [--help]
#
#   --dry-run   check everything and print the docker command, without running it
set -Eeuo pipefail

DOOR=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$DOOR")" && pwd)

# Write a value after := or give the variable in the environment, which wins. What is left empty has its default
# in lib/settings.sh, where a value holds for every script.
: "${MODELS_CONFIG:=}"    # the models, their version policies and labels
: "${MODELS_DIR:=}"       # what /models in the config's base_path stands for
: "${IMAGE_NAME:=}"       # what to call the image
: "${TF_SERVING_IMAGE:=}" # the image to build on; for GPUs the same tag with -gpu at its end
: "${DOCKER_ARGS:=}"      # more arguments for docker build, quoted as in a shell

MODE=multi
# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/image.sh
source "$ROOT/lib/image.sh"

# Sets PLAN, or ends the door with every problem of the config and of the models that it names.
make_plan() {
  [[ -f $MODELS_CONFIG && -r $MODELS_CONFIG ]] \
    || misuse "MODELS_CONFIG=$(quoted "$MODELS_CONFIG") is no file that can be read; write one, or restore the" \
      "one that came with the scripts: git checkout models/models.config"
  PLAN=$(repository plan "--config=$MODELS_CONFIG" "--models-dir=$MODELS_DIR") \
    || misuse "nothing is built; mend what is named above (bash quickstart.sh makes the example models)"
}

add_planned_versions() {
  local name version source base
  while IFS=$'\t' read -r name version source; do
    base=${source%/*} # below MODELS_DIR, as plan has seen to
    add_version "$name" "$version" "$source" "${base#"$MODELS_DIR"/}/$version"
  done <<<"$PLAN"
}

main() {
  build_arguments "$@"
  setting_of_image
  check_image_settings
  find_python google.protobuf
  make_plan
  add_planned_versions
  CONFIG=(cat -- "$MODELS_CONFIG")
  ! looks_like_json "$MODELS_CONFIG" || CONFIG=(repository format "--config=$MODELS_CONFIG")
  build_image
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
