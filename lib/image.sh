# shellcheck shell=bash
# Building images, for build.sh, build_ensemble.sh and docker/embedded/build.sh.

# shellcheck source=lib/docker.sh
source "$ROOT/lib/docker.sh"
# shellcheck source=lib/repository.sh
source "$ROOT/lib/repository.sh"
# shellcheck source=lib/settings_file.sh
source "$ROOT/lib/settings_file.sh"

CONTEXT='' # the build context, a temporary directory
SOURCES=() # the directories of the versions to bake
TARGETS=() # their paths in the context, models/…/VERSION
CONFIG=()  # the command that prints the models.config to bake; empty for one model
MODELS=''  # a summary for labels and messages: "digits:1,2 flowers:7"
LABELS=()  # the arguments that record the contents, as labels and as a tag
BASE=()    # the arguments that record the base image, as a label
DRY_RUN=''

# parse_build_arguments ARG...: the command line of build.sh and build_ensemble.sh.
parse_build_arguments() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      --dry-run) DRY_RUN=yes ;;
      --env-file)
        [[ $# -gt 1 ]] || reject "--env-file needs a file"
        shift
        load_settings "$1"
        ;;
      --env-file=*) load_settings "${1#*=}" ;;
      *) handle_option "$1" ;;
    esac
    shift
  done
}

check_image_settings() {
  check_variables
  check_image_reference TF_SERVING_IMAGE
  check_image_reference IMAGE_NAME
  [[ $IMAGE_NAME != *@* ]] \
    || reject "IMAGE_NAME=$(quoted "$IMAGE_NAME") has a digest, which is unknown before the build; use a tag"
  ! is_base_image "$IMAGE_NAME" \
    || reject "IMAGE_NAME=$(quoted "$IMAGE_NAME") is the base image; set IMAGE_NAME to another name"
  check_verbose
  check_seconds HEALTHCHECK_INTERVAL
  [[ $HEALTHCHECK_INTERVAL != 0 ]] || reject_value HEALTHCHECK_INTERVAL 'number of seconds' 1-99999
  check_seconds HEALTHCHECK_START_PERIOD
  resolve_models_dir
}

check_verbose() { check_choice VERBOSE value '' 0 1; }

add_version() { # NAME VERSION SOURCE TARGET
  local unsupported outside hidden
  check_saved_model "$3"
  unsupported=$(find -L "$3" -name '.?*' -prune -o ! -type d ! -type f -print 2>&1 | head -n 1) || true
  [[ -z $unsupported ]] || reject "$(quoted "$3") contains a special file or a broken link: $unsupported; remove it"
  outside=$(find_outside_file "$3" "$MODELS_DIR")
  [[ -z $outside ]] || reject "$(quoted "$outside") is $(quoted "$(real_path "$outside")"), which is hidden or not in" \
    "$(quoted "$MODELS_DIR"); an image contains only files from there: copy the file, or remove the link"
  hidden=$(find -L "$3" -name '.?*' -prune -print | head -n 5 | tr '\n' ' ') || true
  [[ -z $hidden ]] || log "note: hidden files are not copied to the image: $hidden"
  case " ${TARGETS[*]:-} " in
    *" models/$4 "*) ;; # models with one base_path can share versions
    *)
      SOURCES+=("$3")
      TARGETS+=("models/$4")
      ;;
  esac
  case " $MODELS" in
    *" $1:"*) MODELS+=",$2" ;; # the versions of a model are added one after the other
    *) MODELS+="${MODELS:+ }$1:$2" ;;
  esac
}

# The image's user must be able to read what another user exported, and links must not lead out of the context.
fill_context() {
  local i
  umask 022
  trap '[[ -z $CONTEXT ]] || rm -rf -- "$CONTEXT"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  CONTEXT=$(mktemp -d -- "${TMPDIR:-/tmp}/tfserving-build.XXXXXX") || fail "cannot create the build context"
  CONTEXT=$(absolute_directory "$CONTEXT")
  cp -- "$ROOT/Dockerfile" "$ROOT"/docker/{entrypoint,healthcheck,server_config}.sh "$CONTEXT/"
  [[ -z $HEALTHCHECK_INTERVAL ]] || set_healthcheck_option interval "$HEALTHCHECK_INTERVAL"
  [[ -z $HEALTHCHECK_START_PERIOD ]] || set_healthcheck_option start-period "$HEALTHCHECK_START_PERIOD"
  chmod 755 "$CONTEXT"/*.sh
  mkdir "$CONTEXT/models"
  for ((i = 0; i < ${#SOURCES[@]}; i++)); do
    mkdir -p -- "$CONTEXT/${TARGETS[i]%/*}"
    copy_model_files "${SOURCES[i]}" "$CONTEXT/${TARGETS[i]}" \
      || fail "cannot copy $(quoted "${SOURCES[i]}") to the build context; set TMPDIR to a directory with more space"
  done
  [[ $MODE == single ]] || "${CONFIG[@]}" >"$CONTEXT/models/models.config" || fail "cannot write models.config"
  chmod -R u=rwX,go=rX "$CONTEXT/models"
}

# set_healthcheck_option NAME SECONDS: changes the Dockerfile in the context; HEALTHCHECK does not expand variables.
set_healthcheck_option() {
  local text
  text=$(sed "/^HEALTHCHECK /s/--$1=[^ ]*/--$1=$2s/" "$CONTEXT/Dockerfile")
  printf '%s\n' "$text" >"$CONTEXT/Dockerfile"
}

require_docker() {
  probe_docker || fail "$REASON; $DOCKER_FIX, or serve without an image: ENGINE=embedded bash run_tf_serving.sh"
}

# run_docker_build DESCRIPTION ARG...: prints docker's output only if the build fails or VERBOSE=1.
run_docker_build() {
  local description=$1 start=$SECONDS code=0 output=''
  shift
  log "building $description"
  if [[ $VERBOSE == 1 ]]; then
    docker build "$@" >&2 || code=$?
  else
    output=$(docker build "$@" 2>&1) || code=$?
  fi
  if [[ $code -ne 0 ]]; then
    [[ -z $output ]] || printf '%s\n' "$output" >&2
    fail "docker build failed with exit code $code; its output is above"
  fi
  log "built $IMAGE_NAME${LABELS[1]:+ (also tagged ${LABELS[1]##*:})} in $((SECONDS - start)) s"
}

# identify_build: sets LABELS to the arguments of `docker build` that record what the image contains, as labels and as
# a tag that no other build has: v1-8e03597-20260102T030405Z. IMAGE_NAME moves to the newest build, this tag does not.
identify_build() {
  local created revision='' short='' versions='' repository=$IMAGE_NAME tag
  created=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  if revision=$(git -C "$ROOT" rev-parse HEAD 2>/dev/null); then
    short=${revision:0:7}
    if [[ -n $(git -C "$ROOT" status --porcelain --untracked-files=no 2>/dev/null) ]]; then
      revision+=-dirty short+=-dirty
    fi
  fi
  case $MODE in
    single) versions=${MODELS#*:} ;;
  esac
  tag=${short:+$short-}${created//[-:]/}
  [[ -z $versions || ${#versions} -gt 60 ]] || tag=v${versions//,/_}-$tag
  case ${IMAGE_NAME##*/} in *:*) repository=${IMAGE_NAME%:*} ;; esac
  LABELS=(--tag "$repository:$tag" --label "org.opencontainers.image.version=${versions:-$MODELS}")
  LABELS+=(--label "org.opencontainers.image.revision=${revision:-unknown}")
  LABELS+=(--label "org.opencontainers.image.created=$created")
}

# identify_base IMAGE: sets BASE to the argument of `docker build` that records what IMAGE is at this moment: its
# digest in the registry, or its ID if it was never pushed or pulled. A dry run does not look it up.
identify_base() {
  local image=$1 found id entry name=${1%@*}
  if [[ $image == *@* ]]; then
    BASE=(--label "org.opencontainers.image.base.digest=${image##*@}")
    return
  fi
  [[ -z $DRY_RUN ]] || return 0
  case " ${WORDS[*]:-}" in
    *' --platform'*) ;; # docker build pulls the right one
    *' --pull'*) pull_base "$image" ;;
    *) docker image inspect --format '{{.Id}}' "$image" >/dev/null 2>&1 || pull_base "$image" ;;
  esac
  found=$(docker image inspect --format '{{.Id}}{{range .RepoDigests}} {{.}}{{end}}' "$image" 2>/dev/null) || return 0
  id=${found%% *}
  BASE=(--label "tfserving.base.id=$id")
  case ${name##*/} in *:*) name=${name%:*} ;; esac
  name=${name#docker.io/} name=${name#library/}
  for entry in ${found#"$id"}; do
    [[ ${entry%@*} != "$name" ]] || BASE=(--label "org.opencontainers.image.base.digest=${entry##*@}")
  done
}

# pull_base IMAGE: if it fails, docker build reports why.
pull_base() {
  log "pulling $1"
  docker pull "$1" >/dev/null 2>&1 || true
}

build_image() {
  local arguments
  identify_build
  arguments=(--tag "$IMAGE_NAME" "${LABELS[@]}" --build-arg "TF_SERVING_IMAGE=$TF_SERVING_IMAGE")
  arguments+=(--build-arg "MODE=$MODE" --build-arg "MODELS=$MODELS")
  [[ $MODE == multi ]] || arguments+=(--build-arg "MODEL_NAME=$MODEL_NAME")
  split_docker_args
  [[ -n $DRY_RUN ]] || require_docker
  identify_base "$TF_SERVING_IMAGE"
  arguments+=(${BASE[@]+"${BASE[@]}"} ${WORDS[@]+"${WORDS[@]}"})
  if [[ -n $DRY_RUN ]]; then
    log "dry run: nothing is built; the context would contain ${TARGETS[*]}${CONFIG[*]:+ models/models.config}"
    print_command docker build "${arguments[@]}" "${TMPDIR:-/tmp}/tfserving-build.XXXXXX"
    return
  fi
  fill_context
  run_docker_build "$IMAGE_NAME from $TF_SERVING_IMAGE with $MODELS" "${arguments[@]}" "$CONTEXT"
  case $MODE in
    multi) log "next: $(script_command run_tf_serving.sh IMAGE_NAME) multi" ;;
    *) log "next: $(script_command run_tf_serving.sh MODEL_NAME IMAGE_NAME)" ;;
  esac
}
