# shellcheck shell=bash
# The docker engine: a container of an image from build.sh or build_ensemble.sh.
# Each engine has the functions that run_tf_serving.sh calls: ENGINE_prepare, _command, _start, _is_running, _log,
# _log_command, _find, _list_models, _stop, _discard and _list_servers.

# Seconds after a stop signal until Docker reports a draining container unhealthy: interval x retries in Dockerfile,
# and the time that the checks take.
# shellcheck disable=SC2034 # for run_tf_serving.sh
UNHEALTHY_AFTER=8
CONFIG_PATH='' # the path of a mounted models.config in the container

# probe_docker: sets ENGINE_VERSION and LOG_DRIVER if a Docker daemon responds; else sets REASON and returns 1.
# shellcheck disable=SC2034 # not every script uses all of them
probe_docker() {
  local response code=0 pattern=$'engine ([^ \n]+) ?([^ \n]*)'
  ENGINE_VERSION='' LOG_DRIVER='' REASON='docker is not installed'
  command -v docker >/dev/null || return
  response=$(run_with_timeout 5 docker info --format 'engine {{.ServerVersion}} {{.LoggingDriver}}' 2>&1) || code=$?
  REASON="docker info failed: ${response##*$'\n'}"
  [[ $code -ne 124 ]] || REASON='docker info did not respond within 5 s'
  [[ $code -eq 0 && $response =~ $pattern ]] || return # old clients exit with 0 without a daemon
  ENGINE_VERSION=${BASH_REMATCH[1]} LOG_DRIVER=${BASH_REMATCH[2]}
}

# bind_mount SOURCE TARGET: prints one value of `docker run --mount`, which docker reads as CSV.
bind_mount() {
  local source="source=$1"
  case $source in *[,\"]*) source="\"${source//\"/\"\"}\"" ;; esac
  printf 'type=bind,%s,target=%s,readonly' "$source" "$2"
}

# check_readable_in_image PATH [DEPTH]: the container's user is not the user who runs this script. Hidden files below
# PATH are not part of a model.
check_readable_in_image() {
  local unreadable fix='chmod -R'
  [[ -z ${2:-} ]] || fix='chmod'
  case " $DOCKER_ARGS" in *' --user'* | *' -u'*) return ;; esac
  unreadable=$(find -L "$1" ${2:+-maxdepth "$2"} -name '.?*' ! -path "$1" -prune -o \
    \( -user 65532 \( -type d ! -perm -500 -o -type f ! -perm -400 \) \
    -o ! -user 65532 -group 65532 \( -type d ! -perm -050 -o -type f ! -perm -040 \) \
    -o ! -user 65532 ! -group 65532 \( -type d ! -perm -005 -o -type f ! -perm -004 \) \) \
    -print 2>/dev/null | head -n 1) || true
  [[ -z $unreadable ]] || reject "$(quoted "$unreadable") is not readable for the image's user 65532; $fix o+rX" \
    "$(quoted "$1"), or run the container as yourself: DOCKER_ARGS='--user $(id -u):$(id -g)'"
}

# check_links PATH DIRECTORY: the container sees DIRECTORY at another path, and nothing outside it.
check_links() {
  local link
  case " $DOCKER_ARGS" in *' --mount'* | *' --volume'* | *' -v'*) return ;; esac # more may be mounted
  link=$(find_leaving_link "$1" "$2")
  [[ -z $link ]] || reject "$(quoted "$link") is a link to $(quoted "$(readlink "$link")")," \
    "which does not exist in the container: only $(quoted "$2") is mounted; copy the files there, or make the link" \
    "relative"
}

# docker_add_file NAME FLAG: adds the file of the variable NAME to MOUNTS and FLAG to FLAGS, if the user set it.
docker_add_file() {
  local target=/etc/tfserving/$2
  [[ -n ${!1} ]] || return 0
  check_readable_in_image "${!1}"
  MOUNTS+=(--mount "$(bind_mount "$(absolute_file "${!1}")" "$target")")
  FLAGS+=("--$2=$target")
}

# The config is mounted with its directory: a mounted file would not change when an editor saves by replacing it.
mount_models() {
  local config directory
  if is_set MODELS_DIR; then
    case $MODE in
      single)
        check_readable_in_image "$MODELS_DIR" 0
        check_links "$MODELS_DIR/$MODEL_NAME" "$MODELS_DIR"
        check_readable_in_image "$MODELS_DIR/$MODEL_NAME"
        ;;
      multi)
        check_links "$MODELS_DIR" "$MODELS_DIR"
        check_readable_in_image "$MODELS_DIR"
        ;;
    esac
    MOUNTS+=(--mount "$(bind_mount "$MODELS_DIR" /models)")
  fi
  [[ $MODE == multi ]] || return 0
  is_set MODELS_DIR || is_set MODELS_CONFIG || return 0
  config=$(absolute_file "$MODELS_CONFIG")
  directory=${config%/*}
  check_readable_in_image "$config"
  if is_set MODELS_DIR && [[ $config == "$MODELS_DIR"/* ]]; then
    check_links "$config" "$MODELS_DIR"
    CONFIG_PATH=/models/${config#"$MODELS_DIR"/}
  else
    CONFIG_PATH=/etc/tfserving/config/${config##*/}
    check_links "$config" "${directory:-/}"
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
  add_setting_flags docker_add_file
  COMMAND=(docker run --detach --name "$CONTAINER_NAME")
  # The labels mark the container as ours and hold what status reads later.
  COMMAND+=(--label "tfserving.grpc=$where$GRPC_PORT" --label "tfserving.rest=$where$REST_PORT")
  ! is_set MODEL_NAME || [[ $MODE == multi ]] || COMMAND+=(--label "tfserving.model_name=$MODEL_NAME")
  [[ -z $CONFIG_PATH ]] || COMMAND+=(--label "tfserving.models_config=$CONFIG_PATH")
  COMMAND+=(--publish "$where$GRPC_PORT:8500" --publish "$where$REST_PORT:8501")
  COMMAND+=(--read-only --cap-drop ALL --security-opt no-new-privileges)
  # After the drain, tensorflow_model_server exits within 10 ms, and the embedded server of docker/embedded takes up to
  # 10 s to finish the requests in flight.
  COMMAND+=(--restart "$RESTART_POLICY" --stop-timeout "$((DRAIN_SECONDS + 15))")
  # Other log drivers reject these options.
  case "${LOG_DRIVER:-json-file} $DOCKER_ARGS" in
    *--log-driver*) ;;
    json-file* | local*) COMMAND+=(--log-opt max-size=10m --log-opt max-file=3) ;;
  esac
  # docker reads the value as CSV, where the comma of a list needs quotes.
  [[ -z $GPU ]] || COMMAND+=(--gpus "\"device=$GPU\"")
  ! is_set MODEL_NAME || [[ $MODE == multi ]] || COMMAND+=(--env "MODEL_NAME=$MODEL_NAME")
  ! is_set DRAIN_SECONDS || COMMAND+=(--env "DRAIN_SECONDS=$DRAIN_SECONDS")
  COMMAND+=(${MOUNTS[@]+"${MOUNTS[@]}"})
  split_docker_args
  COMMAND+=(${WORDS[@]+"${WORDS[@]}"} "$IMAGE_NAME" ${FLAGS[@]+"${FLAGS[@]}"} "$@")
}

# print_build_command [IMAGE_NAME]: prints the command that builds an image for these settings, for messages: one named
# IMAGE_NAME, or without the argument one with the default name, so that an existing image keeps its name.
print_build_command() {
  case $MODE in
    single) script_command build.sh MODEL_NAME MODEL_VERSIONS MODELS_DIR "$@" ;;
    multi) script_command build_ensemble.sh MODELS_DIR MODELS_CONFIG "$@" ;;
  esac
}

IMAGE_FORMAT='{{with .Config.Labels}}{{index . "tfserving.mode"}}|{{index . "tfserving.model_name"}}{{else}}|{{end}}|'
IMAGE_FORMAT+='{{range .Config.Env}}{{.}} {{end}}'

# docker_prepare: checks what needs the daemon: the image, whose model is the default, and the ports of other
# containers.
docker_prepare() {
  local image mode model variables port names
  ! is_base_image "$IMAGE_NAME" \
    || reject "image $IMAGE_NAME was not built by build.sh or build_ensemble.sh; build one: $(print_build_command)"
  image=$(docker image inspect --format "$IMAGE_FORMAT" "$IMAGE_NAME" 2>/dev/null) \
    || reject "image $IMAGE_NAME is not available;" \
      "$(is_set IMAGE_NAME && printf 'pull it, or ')build it: $(print_build_command IMAGE_NAME)"
  IFS='|' read -r mode model variables <<<"$image"
  [[ -n $mode ]] \
    || reject "image $IMAGE_NAME was not built by build.sh or build_ensemble.sh; build one: $(print_build_command)"
  [[ $mode == "$MODE" ]] \
    || reject "image $IMAGE_NAME is for mode $mode, not $MODE; set MODE=$mode, or build another: $(print_build_command)"
  if [[ $MODE == single ]]; then
    is_set MODEL_NAME || MODEL_NAME=$model
    ! is_set MODELS_DIR || check_model_directory
    [[ $model == "$MODEL_NAME" ]] || is_set MODELS_DIR \
      || reject "image $IMAGE_NAME contains model $model, not $MODEL_NAME; build it: $(print_build_command)"
  fi
  [[ -z $GPU || " $variables" == *' CUDA_VERSION='* || " $variables" == *' NVIDIA_VISIBLE_DEVICES='* ]] \
    || reject "GPU=$GPU, but image $IMAGE_NAME has no CUDA; build it from the -gpu image:" \
      "TF_SERVING_IMAGE=$(gpu_image) $(print_build_command IMAGE_NAME)"
  for port in "$GRPC_PORT" "$REST_PORT"; do
    names=$(docker ps --filter "publish=$port" --format '{{.Names}}') || names=''
    [[ -z $names ]] || reject_used_port "$port" "container ${names%%$'\n'*}"
  done
}

# gpu_image: prints the base image with CUDA that matches TF_SERVING_IMAGE.
gpu_image() {
  case $TF_SERVING_IMAGE in
    *-gpu | *@*) quoted "$TF_SERVING_IMAGE" ;;
    *) quoted "$TF_SERVING_IMAGE-gpu" ;;
  esac
}

docker_start() {
  docker_find
  if [[ $FOUND == stopped ]]; then
    log "replacing container $CONTAINER_NAME, which has stopped"
    docker_remove
  fi
  "${COMMAND[@]}" >/dev/null \
    || fail "docker run failed; its output is above${GPU:+ (GPUs need the NVIDIA Container Toolkit)}"
  docker_find
}

# A restarted container reports running again, so its restart count matters too.
docker_is_running() {
  local format='{{.State.Status}} {{.RestartCount}}'
  [[ $(docker container inspect --format "$format" "$CONTAINER_NAME" 2>/dev/null) == 'running 0' ]]
}

docker_log() { docker logs --tail "${1:-50}" "$CONTAINER_NAME" 2>&1; }
docker_log_command() { printf 'docker logs --follow %s' "$CONTAINER_NAME"; }

CONTAINER_FORMAT='{{.State.Status}}|{{if .State.Health}}{{.State.Health.Status}}{{end}}|'
CONTAINER_FORMAT+='{{with .Config.Labels}}{{index . "tfserving.grpc"}}|{{index . "tfserving.rest"}}|'
CONTAINER_FORMAT+='{{index . "tfserving.mode"}}|{{index . "tfserving.model_name"}}|{{index . "tfserving.models"}}|'
CONTAINER_FORMAT+='{{index . "tfserving.models_config"}}{{end}}'

# docker_find: looks up CONTAINER_NAME. Sets FOUND to running, stopped, foreign or '', and FOUND_... to what it serves.
docker_find() {
  local container state mode
  FOUND='' FOUND_HEALTH='' FOUND_GRPC='' FOUND_REST='' FOUND_MODEL='' FOUND_MODELS='' FOUND_CONFIG=''
  container=$(docker container inspect --format "$CONTAINER_FORMAT" "$CONTAINER_NAME" 2>/dev/null) || return 0
  # shellcheck disable=SC2034 # no script uses all of them
  IFS='|' read -r state FOUND_HEALTH FOUND_GRPC FOUND_REST mode FOUND_MODEL FOUND_MODELS FOUND_CONFIG <<<"$container"
  case $state in
    created | exited | dead) FOUND=stopped ;;
    *) FOUND=running ;;
  esac
  [[ -n $FOUND_REST ]] || FOUND=foreign
  [[ $mode == single ]] || FOUND_MODEL=''
}

# docker_list_models: prints the names of the models that the container should serve, one per line.
docker_list_models() {
  local pair
  if [[ -n $FOUND_MODEL ]]; then
    printf '%s\n' "$FOUND_MODEL"
  elif [[ -n $FOUND_CONFIG ]]; then
    docker exec "$CONTAINER_NAME" cat "$FOUND_CONFIG" | list_config_models /dev/stdin
  else
    for pair in $FOUND_MODELS; do
      printf '%s\n' "${pair%:*}"
    done
  fi
}

# docker_is_draining: the health check and the entrypoint keep the mark in the same place.
docker_is_draining() {
  # shellcheck disable=SC2016 # expands in the container
  local test='source /usr/local/bin/server_config.sh; [[ -e ${STATE_DIR:-$(get_state_dir)}/draining ]]'
  [[ $FOUND == running ]] || return
  run_with_timeout 10 docker exec "$CONTAINER_NAME" bash -c "$test" >/dev/null 2>&1
}

docker_stop() {
  docker stop "$CONTAINER_NAME" >/dev/null || fail "docker stop failed; its output is above"
  docker_remove
}

# docker_discard: removes a container that failed to start; another program may have taken the name meanwhile.
docker_discard() {
  docker_find
  case $FOUND in running | stopped) docker_remove ;; esac
}

docker_remove() { docker rm --force "$CONTAINER_NAME" >/dev/null 2>&1 || true; }

# docker_list_servers: prints the names of our running containers, one per line.
docker_list_servers() {
  run_with_timeout 5 docker ps --filter label=tfserving.rest --format '{{.Names}}' 2>/dev/null || true
}
