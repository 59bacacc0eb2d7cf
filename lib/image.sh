# shellcheck shell=bash
# From versions on disk to an image; what build.sh and build_ensemble.sh share.

# shellcheck source=lib/versions.sh
source "$ROOT/lib/versions.sh"

CONTEXT='' # the build context, a directory that lives as long as the door
SOURCES=() # directories of versions, and
TARGETS=() # where in the context each goes, models/…/VERSION
CONFIG=()  # the command that prints the models.config to bake; none for one model
MODELS=''  # what is baked, for people: "digits:1,2 flowers:7"

# add_version NAME VERSION SOURCE TARGET
add_version() {
  local unfit
  check_saved_model "$3"
  unfit=$(find -L "$3" ! -type d ! -type f 2>&1 | head -n 1) || true
  [[ -z $unfit ]] || misuse "$(quoted "$3") holds something that is neither a file nor a directory, or a link that" \
    "leads nowhere: $unfit; remove it"
  case " ${TARGETS[*]:-} " in
    *" models/$4 "*) ;; # models of one base_path may have versions in common
    *)
      SOURCES+=("$3")
      TARGETS+=("models/$4")
      ;;
  esac
  case " $MODELS" in
    *" $1:"*) MODELS+=",$2" ;; # a model's versions come one after the other
    *) MODELS+="${MODELS:+ }$1:$2" ;;
  esac
}

# Called before anything is written, so that whatever ends the door takes the context with it.
remove_context_at_end() {
  trap '[[ -z $CONTEXT ]] || rm -rf -- "$CONTEXT"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

# Nothing but what the image needs; links resolved, and readable by any user, since the image's is not the one who
# exported.
fill_context() {
  local i
  umask 022
  remove_context_at_end
  CONTEXT=$(mktemp -d "${TMPDIR:-/tmp}/tfserving-build.XXXXXX") || fail "no directory for the build context"
  cp -- "$ROOT/Dockerfile" "$ROOT/lib/entrypoint.sh" "$ROOT/lib/healthcheck.sh" "$CONTEXT/"
  chmod 755 "$CONTEXT/entrypoint.sh" "$CONTEXT/healthcheck.sh"
  mkdir "$CONTEXT/models"
  for ((i = 0; i < ${#SOURCES[@]}; i++)); do
    mkdir -p -- "$CONTEXT/${TARGETS[i]%/*}"
    cp -RL -- "${SOURCES[i]}" "$CONTEXT/${TARGETS[i]}" \
      || fail "$(quoted "${SOURCES[i]}") could not be copied; TMPDIR names a directory with more room"
  done
  [[ $MODE == single ]] || "${CONFIG[@]}" >"$CONTEXT/models/models.config" || fail "the config could not be written"
  chmod -R u=rwX,go=rX "$CONTEXT/models"
}

build_image() {
  local command=(docker build --tag "$IMAGE_NAME" --build-arg "TF_SERVING_IMAGE=$TF_SERVING_IMAGE")
  command+=(--build-arg "MODE=$MODE" --build-arg "MODELS=$MODELS")
  [[ $MODE == multi ]] || command+=(--build-arg "MODEL_NAME=$MODEL_NAME")
  split_words "$DOCKER_ARGS" || misuse "DOCKER_ARGS=$(quoted "$DOCKER_ARGS") has a quote without its partner"
  command+=(${WORDS[@]+"${WORDS[@]}"})
  if [[ -n $DRY_RUN ]]; then
    note "dry run: nothing is built; the context would hold ${TARGETS[*]}${CONFIG[*]:+ models/models.config}"
    print_command "${command[@]}" "${TMPDIR:-/tmp}/tfserving-build.XXXXXX"
    return
  fi
  command -v docker >/dev/null \
    || fail "docker is not installed; install it, or serve without an image: ENGINE=embedded bash run_tf_serving.sh"
  note "building $IMAGE_NAME from $TF_SERVING_IMAGE with $MODELS"
  fill_context
  "${command[@]}" "$CONTEXT" || fail "docker build failed (exit code $?); its message is above"
  note "built $IMAGE_NAME; next: $(run_command)"
}

run_command() {
  case $MODE in
    multi) printf '%s multi' "$(door_command run_tf_serving.sh IMAGE_NAME)" ;;
    *) door_command run_tf_serving.sh MODEL_NAME IMAGE_NAME ;;
  esac
}

check_image_settings() {
  check_control_characters
  check_image_reference TF_SERVING_IMAGE
  check_image_reference IMAGE_NAME
  [[ $IMAGE_NAME != *@* ]] \
    || misuse "IMAGE_NAME=$(quoted "$IMAGE_NAME") has a digest, which is known only after the build; give a tag"
  [[ -d $MODELS_DIR ]] || misuse "MODELS_DIR=$(quoted "$MODELS_DIR") is no directory; make one with" \
    "$(export_command "$MODEL_NAME"), or bash quickstart.sh for the examples"
  MODELS_DIR=$(absolute_directory "$MODELS_DIR")
}

# build_arguments ARG...: the command line of both build doors.
build_arguments() {
  DRY_RUN=''
  while [[ $# -gt 0 ]]; do
    case $1 in
      --dry-run) DRY_RUN=yes ;;
      --help | -h)
        usage
        exit
        ;;
      *) misuse "unknown argument $(quoted "$1"); --help shows the usage (values are given as variables)" ;;
    esac
    shift
  done
}
