# shellcheck shell=bash
# The engine for production: a container of an image that build.sh or build_ensemble.sh made.
# Each engine has the functions that run_tf_serving.sh calls: ENGINE_prepare, _command, _start, _runs, _log,
# _log_command, _find, _models, _stop, _discard and _others.

CONFIG_PATH='' # where the container has its models.config, when that is not the image's own

# docker_answers: sets ENGINE_VERSION and LOG_DRIVER when an engine answers, else WHY_NOT.
docker_answers() {
  local answer code=0 pattern=$'engine ([^ \n]+) ?([^ \n]*)'
  ENGINE_VERSION='' LOG_DRIVER='' WHY_NOT='docker is not installed'
  command -v docker >/dev/null || return
  answer=$(within 5 docker info --format 'engine {{.ServerVersion}} {{.LoggingDriver}}' 2>&1) || code=$?
  WHY_NOT="docker info says: ${answer##*$'\n'}"
  [[ $code -ne 124 ]] || WHY_NOT='docker info does not answer within 5 s'
  [[ $code -eq 0 && $answer =~ $pattern ]] || return # old clients end well without an engine too
  ENGINE_VERSION=${BASH_REMATCH[1]} LOG_DRIVER=${BASH_REMATCH[2]}
}

# bind_mount SOURCE TARGET: one field of `docker run --mount`, which is read as CSV.
bind_mount() {
  local source="source=$1"
  case $source in *[,\"]*) source="\"${source//\"/\"\"}\"" ;; esac
  printf 'type=bind,%s,target=%s,readonly' "$source" "$2"
}

# check_readable_in_image PATH [DEPTH]: the container's user is not the one who runs this door. Names that begin with
# a dot are no part of a model.
check_readable_in_image() {
  local closed mend='chmod -R'
  [[ -z ${2:-} ]] || mend='chmod'
  case " $DOCKER_ARGS" in *' --user'* | *' -u'*) return ;; esac
  closed=$(find -L "$1" ${2:+-maxdepth "$2"} -name '.?*' -prune -o ! -user 65532 \
    \( -type d ! -perm -005 -o -type f ! -perm -004 \) -print 2>/dev/null | head -n 1) || true
  [[ -z $closed ]] || misuse "$(quoted "$closed") cannot be read by the image's user 65532; $mend o+rX" \
    "$(quoted "$1"), or run the container as yourself: DOCKER_ARGS='--user $(id -u):$(id -g)'"
}

# mount_file VARIABLE FLAG: adds the file of VARIABLE to MOUNTS and FLAG to FLAGS, when the user chose one.
mount_file() {
  local target=/etc/tfserving/$2
  [[ -n ${!1} ]] || return 0
  check_readable_in_image "${!1}"
  MOUNTS+=(--mount "$(bind_mount "$(absolute_file "${!1}")" "$target")")
  FLAGS+=("--$2=$target")
}

# The config is mounted with the directory it lies in: an editor that saves by replacing the file would leave a
# mounted file as it was.
mount_models() {
  local config directory
  if chosen MODELS_DIR; then
    case $MODE in
      single)
        check_readable_in_image "$MODELS_DIR" 0
        check_readable_in_image "$MODELS_DIR/$MODEL_NAME"
        ;;
      multi) check_readable_in_image "$MODELS_DIR" ;;
    esac
    MOUNTS+=(--mount "$(bind_mount "$MODELS_DIR" /models)")
  fi
  [[ $MODE == multi ]] || return 0
  chosen MODELS_DIR || chosen MODELS_CONFIG || return 0
  config=$(absolute_file "$MODELS_CONFIG")
  directory=${config%/*}
  check_readable_in_image "$config"
  if chosen MODELS_DIR && [[ $config == "$MODELS_DIR"/* ]]; then
    CONFIG_PATH=/models/${config#"$MODELS_DIR"/}
  else
    CONFIG_PATH=/etc/tfserving/config/${config##*/}
    check_readable_in_image "${directory:-/}" 0
    MOUNTS+=(--mount "$(bind_mount "${directory:-/}" /etc/tfserving/config)")
  fi
  [[ $CONFIG_PATH == /models/models.config ]] || FLAGS+=("--model_config_file=$CONFIG_PATH")
}

# docker_command FLAG...: sets COMMAND.
docker_command() {
  local where
  check_image_reference IMAGE_NAME
  MOUNTS=() FLAGS=()
  where=$(host_port "$BIND_ADDRESS" '')
  mount_models
  add_flags mount_file
  COMMAND=(docker run --detach --name "$CONTAINER_NAME")
  # What marks the container as ours, and what status needs to know of it later.
  COMMAND+=(--label "tfserving.grpc=$where$GRPC_PORT" --label "tfserving.rest=$where$REST_PORT")
  ! chosen MODEL_NAME || [[ $MODE == multi ]] || COMMAND+=(--label "tfserving.model_name=$MODEL_NAME")
  [[ -z $CONFIG_PATH ]] || COMMAND+=(--label "tfserving.models_config=$CONFIG_PATH")
  COMMAND+=(--publish "$where$GRPC_PORT:8500" --publish "$where$REST_PORT:8501")
  COMMAND+=(--read-only --cap-drop ALL --security-opt no-new-privileges)
  # The calls in flight get their time after the drain.
  COMMAND+=(--restart "$RESTART_POLICY" --stop-timeout "$((DRAIN_SECONDS + 15))")
  # Other log drivers refuse these, that of the engine or one that the user asks for.
  case "${LOG_DRIVER:-json-file} $DOCKER_ARGS" in
    *--log-driver*) ;;
    json-file* | local*) COMMAND+=(--log-opt max-size=10m --log-opt max-file=3) ;;
  esac
  # The quotes are docker's: without them the comma of a list would begin another field.
  [[ -z $GPU ]] || COMMAND+=(--gpus "\"device=$GPU\"")
  ! chosen MODEL_NAME || [[ $MODE == multi ]] || COMMAND+=(--env "MODEL_NAME=$MODEL_NAME")
  ! chosen DRAIN_SECONDS || COMMAND+=(--env "DRAIN_SECONDS=$DRAIN_SECONDS")
  COMMAND+=(${MOUNTS[@]+"${MOUNTS[@]}"})
  split_words "$DOCKER_ARGS" || misuse "DOCKER_ARGS=$(quoted "$DOCKER_ARGS") has a quote without its partner"
  COMMAND+=(${WORDS[@]+"${WORDS[@]}"} "$IMAGE_NAME" ${FLAGS[@]+"${FLAGS[@]}"} "$@")
}

build_command() {
  case $MODE in
    single) door_command build.sh MODEL_NAME MODEL_VERSIONS MODELS_DIR IMAGE_NAME ;;
    multi) door_command build_ensemble.sh MODELS_DIR MODELS_CONFIG IMAGE_NAME ;;
  esac
}

IMAGE_FORMAT='{{with .Config.Labels}}{{index . "tfserving.mode"}}|{{index . "tfserving.model_name"}}{{else}}|{{end}}|'
IMAGE_FORMAT+='{{range .Config.Env}}{{.}} {{end}}'

# What only an engine can tell: the image, whose model is served when no other is chosen, and the ports of other
# containers.
docker_prepare() {
  local answer mode model variables other
  answer=$(docker image inspect --format "$IMAGE_FORMAT" "$IMAGE_NAME" 2>/dev/null) \
    || misuse "no image $IMAGE_NAME here; $(chosen IMAGE_NAME && printf 'pull it, or ')build it: $(build_command)"
  IFS='|' read -r mode model variables <<<"$answer"
  [[ -n $mode ]] || misuse "image $IMAGE_NAME was not made by build.sh or build_ensemble.sh; build one: $(build_command)"
  [[ $mode == "$MODE" ]] \
    || misuse "image $IMAGE_NAME is for mode $mode, not $MODE; run it so, or build the other: $(build_command)"
  if [[ $MODE == single ]]; then
    chosen MODEL_NAME || MODEL_NAME=$model
    ! chosen MODELS_DIR || check_model_directory "$MODEL_NAME"
    [[ $model == "$MODEL_NAME" ]] || chosen MODELS_DIR \
      || misuse "image $IMAGE_NAME holds model $model, not $MODEL_NAME; build it: $(build_command)"
  fi
  [[ -z $GPU || " $variables" == *' CUDA_VERSION='* || " $variables" == *' NVIDIA_VISIBLE_DEVICES='* ]] \
    || misuse "GPU=$GPU, but image $IMAGE_NAME has no CUDA; build it on the -gpu image:" \
      "TF_SERVING_IMAGE=$(gpu_image) $(build_command)"
  for other in "$GRPC_PORT" "$REST_PORT"; do
    answer=$(docker ps --filter "publish=$other" --format '{{.Names}}') || answer=''
    [[ -z $answer ]] || port_taken "$other" "container ${answer%%$'\n'*}"
  done
}

# The base with CUDA that goes with TF_SERVING_IMAGE.
gpu_image() {
  case $TF_SERVING_IMAGE in
    *-gpu | *@*) quoted "$TF_SERVING_IMAGE" ;;
    *) quoted "$TF_SERVING_IMAGE-gpu" ;;
  esac
}

docker_start() {
  docker_find
  if [[ $FOUND == dead ]]; then
    note "replacing container $CONTAINER_NAME, which has ended"
    docker_remove
  fi
  "${COMMAND[@]}" >/dev/null \
    || fail "docker run failed; its message is above$([[ -z $GPU ]] || printf ' (GPUs need the NVIDIA Container Toolkit)')"
  docker_find
}

# A container that came up again has been down: its restart policy hides that from its status.
docker_runs() {
  [[ $(docker container inspect --format '{{.State.Status}} {{.RestartCount}}' "$CONTAINER_NAME" 2>/dev/null) == 'running 0' ]]
}

docker_log() { docker logs --tail 50 "$CONTAINER_NAME" 2>&1; }
docker_log_command() { printf 'docker logs --follow %s' "$CONTAINER_NAME"; }

CONTAINER_FORMAT='{{.State.Status}}|{{if .State.Health}}{{.State.Health.Status}}{{end}}|'
CONTAINER_FORMAT+='{{with .Config.Labels}}{{index . "tfserving.grpc"}}|{{index . "tfserving.rest"}}|'
CONTAINER_FORMAT+='{{index . "tfserving.mode"}}|{{index . "tfserving.model_name"}}|{{index . "tfserving.models"}}|'
CONTAINER_FORMAT+='{{index . "tfserving.models_config"}}{{end}}'

# docker_find: looks for CONTAINER_NAME. Sets FOUND to running, dead, foreign or nothing, and what it serves.
docker_find() {
  local answer state mode
  FOUND='' FOUND_HEALTH='' FOUND_GRPC='' FOUND_REST='' FOUND_MODEL='' FOUND_MODELS='' FOUND_CONFIG=''
  answer=$(docker container inspect --format "$CONTAINER_FORMAT" "$CONTAINER_NAME" 2>/dev/null) || return 0
  # shellcheck disable=SC2034 # no door needs all of them
  IFS='|' read -r state FOUND_HEALTH FOUND_GRPC FOUND_REST mode FOUND_MODEL FOUND_MODELS FOUND_CONFIG <<<"$answer"
  case $state in
    created | exited | dead) FOUND=dead ;;
    *) FOUND=running ;;
  esac
  [[ -n $FOUND_REST ]] || FOUND=foreign
  [[ $mode == single ]] || FOUND_MODEL=''
}

# docker_models: the names of the models that the container is to serve, one a line.
docker_models() {
  local pair
  if [[ -n $FOUND_MODEL ]]; then
    printf '%s\n' "$FOUND_MODEL"
  elif [[ -n $FOUND_CONFIG ]]; then
    docker exec "$CONTAINER_NAME" cat "$FOUND_CONFIG" | in_image model_names /dev/stdin | tr '\0' '\n'
  else
    for pair in $FOUND_MODELS; do
      printf '%s\n' "${pair%:*}"
    done
  fi
}

# docker_stop: ends the container in order and removes it.
docker_stop() {
  docker stop "$CONTAINER_NAME" >/dev/null || fail "docker stop failed; its message is above"
  docker_remove
}

# docker_discard: what was started and did not come up; unless the name is another's by now.
docker_discard() {
  docker_find
  case $FOUND in running | dead) docker_remove ;; esac
}

docker_remove() { docker rm --force "$CONTAINER_NAME" >/dev/null 2>&1 || true; }

# docker_others: the containers of ours that run, one a line.
docker_others() { within 5 docker ps --filter label=tfserving.rest --format '{{.Names}}' 2>/dev/null || true; }
