# shellcheck shell=bash
# The docker engine: a container of an image from build.sh or build_ensemble.sh.
# Each engine has the same functions, ENGINE_NAME: prepare, command, start, is_running, is_listening, discard and
# stop; find, list, list_servers and list_models; log, logs and log_command; and for status active_config, read_config,
# is_polling, is_draining and reload_error.

# shellcheck source=lib/docker.sh
source "$ROOT/lib/docker.sh"

OWN_NAMES=''         # more containers that a restart stops, with a space after each
CONFIG_PATH=''       # the path of a mounted models.config in the container
CONTAINER_ID=''      # the container that this script created
KEEP_CONTAINER=''    # not empty: CONTAINER_ID is an older container, which is kept if it fails
CONTAINER_ID_FILE='' # where `docker run` prints it
# Seconds after a stop signal until Docker reports a draining container unhealthy: interval x retries in Dockerfile,
# and the time that the checks take.
# shellcheck disable=SC2034 # for run_tf_serving.sh
UNHEALTHY_AFTER=8

# bind_mount SOURCE TARGET: prints one value of `docker run --mount`, which docker reads as CSV.
bind_mount() {
  local source="source=$1"
  case $source in *[,\"]*) source="\"${source//\"/\"\"}\"" ;; esac
  printf 'type=bind,%s,target=%s,readonly' "$source" "$2"
}

# check_readable_in_image PATH [DEPTH]: the container's user is not the user who runs this script.
check_readable_in_image() {
  local unreadable fix='chmod -R'
  [[ -z ${2:-} ]] || fix='chmod'
  unreadable=$(find_unreadable_in_image "$@")
  [[ -z $unreadable ]] || reject "$(quoted "$unreadable") is not readable for the image's user 65532; $fix o+rX" \
    "$(quoted "$1"), or $RUN_AS_YOURSELF"
}

# check_key_readable_in_image FILE: as check_readable_in_image, for a file that other users must not read.
check_key_readable_in_image() {
  [[ -z $(find_unreadable_in_image "$1") ]] || reject "$(quoted "$1") is not readable for the image's user 65532, and" \
    "contains a private key; give only that user's group access: sudo chgrp 65532 $(quoted "$1") &&" \
    "chmod 640 $(quoted "$1"), or $RUN_AS_YOURSELF"
}

RUN_AS_YOURSELF="run the container as yourself: DOCKER_ARGS='--user $(id -u):$(id -g)'"

# find_unreadable_in_image PATH [DEPTH]: prints the first file at or below PATH that user 65532 cannot read. Hidden
# files below PATH are not part of a model.
find_unreadable_in_image() {
  case " $DOCKER_ARGS" in *' --user'* | *' -u'*) return ;; esac
  find -L "$1" ${2:+-maxdepth "$2"} -name '.?*' ! -path "$1" -prune -o \
    \( -user 65532 \( -type d ! -perm -500 -o -type f ! -perm -400 \) \
    -o ! -user 65532 -group 65532 \( -type d ! -perm -050 -o -type f ! -perm -040 \) \
    -o ! -user 65532 ! -group 65532 \( -type d ! -perm -005 -o -type f ! -perm -004 \) \) \
    -print 2>/dev/null | head -n 1 || true
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
  case $1 in
    SSL_CONFIG_FILE) check_key_readable_in_image "${!1}" ;;
    *) check_readable_in_image "${!1}" ;;
  esac
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
  local where name
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
  # Against fork bombs; a server with many models and cores needs several hundred threads.
  COMMAND+=(--pids-limit 4096)
  # The same limit for memory and swap together means no swap.
  [[ -z $MEMORY ]] || COMMAND+=(--memory "$MEMORY" --memory-swap "$MEMORY")
  [[ -z $CPUS ]] || COMMAND+=(--cpus "$CPUS")
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
  for name in DRAIN_SECONDS MAX_CONNECTION_AGE_SECONDS MAX_CONNECTION_AGE_GRACE_SECONDS; do
    ! is_set "$name" || COMMAND+=(--env "$name=${!name}")
  done
  [[ $XLA != auto ]] || COMMAND+=(--env "TF_XLA_FLAGS=$(xla_environment "$(xla_device)")")
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

# docker_prepare: checks what needs the daemon: the image, whose model is the default, the GPUs, and the ports of other
# containers.
docker_prepare() {
  local image mode model variables port names
  ! is_base_image "$IMAGE_NAME" \
    || reject "image $IMAGE_NAME was not built by build.sh or build_ensemble.sh; build one: $(print_build_command)"
  image=$(query_docker image inspect --format "$IMAGE_FORMAT" "$IMAGE_NAME" 2>/dev/null) \
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
  check_gpus_exist
  for port in "$GRPC_PORT" "$REST_PORT"; do
    names=$(query_docker ps --filter "publish=$port" --format '{{.Names}}') || names=''
    # A restart stops its own containers first.
    [[ -z $names || " $CONTAINER_NAME $OWN_NAMES" == *" $names "* ]] || reject_used_port "$port" "container ${names%%$'\n'*}"
  done
}

# gpu_image: prints the base image with CUDA that matches TF_SERVING_IMAGE.
gpu_image() {
  case $TF_SERVING_IMAGE in
    *-gpu | *@*) quoted "$TF_SERVING_IMAGE" ;;
    *) quoted "$TF_SERVING_IMAGE-gpu" ;;
  esac
}

# docker_start: sets CONTAINER_ID. Only that container is removed if the start fails: another start of the same name,
# from another checkout, may have won. `docker run` prints the ID as soon as the container is created.
docker_start() {
  local code=0
  docker_find
  if [[ $FOUND == stopped ]]; then
    log "replacing container $CONTAINER_NAME, which has stopped"
    query_docker rm "$FOUND_ID" >/dev/null || fail "cannot remove container $CONTAINER_NAME; docker's output is above"
  fi
  CONTAINER_ID_FILE=$(embedded_file container)
  create_file container
  run_with_timeout "$START_TIMEOUT" "${COMMAND[@]}" >"$CONTAINER_ID_FILE" || code=$?
  read_container_id
  [[ $code -ne 124 ]] || fail "docker run did not return within START_TIMEOUT=$START_TIMEOUT s"
  [[ $code -eq 0 ]] || fail "docker run failed; its output is above${GPU:+ (GPUs need the NVIDIA Container Toolkit)}"
  docker_find
}

# read_container_id: sets CONTAINER_ID, after the end of a `docker run` that still runs.
read_container_id() {
  local tenths=100
  [[ -n $CONTAINER_ID_FILE ]] || return 0
  until read -r CONTAINER_ID <"$CONTAINER_ID_FILE" || [[ -z $(jobs -r) ]] || ((tenths-- == 0)); do
    sleep 0.1
  done
  rm -f -- "$CONTAINER_ID_FILE"
  CONTAINER_ID_FILE=''
}

# A restarted container reports running again, so its restart count matters too.
docker_is_running() {
  local format='{{.State.Status}} {{.RestartCount}}' state code=0
  state=$(query_docker container inspect --format "$format" "$CONTAINER_ID" 2>/dev/null) || code=$?
  [[ $state == 'running 0' || $code -eq 124 ]]
}

# docker_is_listening: docker publishes a port for one container only.
docker_is_listening() { :; }

docker_log() { query_docker logs --tail "${1:-50}" "$CONTAINER_ID" 2>&1; }
docker_log_command() { printf 'docker logs --follow %s' "$CONTAINER_NAME"; }
docker_logs() { exec docker logs ${FOLLOW:+--follow} "$FOUND_ID" 2>&1; } # the server writes to stderr

CONTAINER_FORMAT='{{.ID}}|{{with .Config.StopTimeout}}{{.}}{{else}}10{{end}}|{{.Config.Image}}|{{.RestartCount}}|'
CONTAINER_FORMAT+='{{.State.ExitCode}}|{{.State.OOMKilled}}|{{.State.FinishedAt}}|'
CONTAINER_FORMAT+='{{with .Config.Labels}}{{index . "org.opencontainers.image.created"}}|'
CONTAINER_FORMAT+='{{index . "org.opencontainers.image.revision"}}{{else}}|{{end}}|'
CONTAINER_FORMAT+='{{range .Mounts}}{{if eq .Destination "/models"}}{{.Source}}{{end}}{{end}}|'
CONTAINER_FORMAT+='{{.State.Status}}|{{if .State.Health}}{{.State.Health.Status}}{{end}}|'
CONTAINER_FORMAT+='{{with .Config.Labels}}{{index . "tfserving.grpc"}}|{{index . "tfserving.rest"}}|'
CONTAINER_FORMAT+='{{index . "tfserving.mode"}}|{{index . "tfserving.model_name"}}|{{index . "tfserving.models"}}|'
CONTAINER_FORMAT+='{{index . "tfserving.models_config"}}{{end}}'

# docker_find: looks up CONTAINER_NAME. Sets FOUND to running, stopped, foreign or '', and FOUND_... to what it serves.
docker_find() {
  local container image restarts exit_code oom finished created revision models mode
  FOUND='' FOUND_ID='' FOUND_STOP_TIMEOUT='' FOUND_STATE='' FOUND_DETAILS='' FOUND_HEALTH=''
  FOUND_GRPC='' FOUND_REST='' FOUND_MODEL='' FOUND_MODELS='' FOUND_CONFIG=''
  if ! container=$(query_docker container inspect --format "$CONTAINER_FORMAT" "$CONTAINER_NAME" 2>&1); then
    ! matches "$container" '[Nn]o such (container|object)' || return 0
    fail "cannot tell whether container $CONTAINER_NAME exists; docker reports: ${container:-no response within 10 s}"
  fi
  # shellcheck disable=SC2034 # no script uses all of them
  IFS='|' read -r FOUND_ID FOUND_STOP_TIMEOUT image restarts exit_code oom finished created revision models FOUND_STATE \
    FOUND_HEALTH FOUND_GRPC FOUND_REST mode FOUND_MODEL FOUND_MODELS FOUND_CONFIG <<<"${container##*$'\n'}"
  FOUND_DETAILS="image $image${created:+ (built $created${revision:+, revision ${revision:0:7}})}"
  FOUND_DETAILS+=", models ${models:-in the image}"
  [[ -n $models || -z $FOUND_CONFIG ]] || FOUND_DETAILS+=', config mounted'
  [[ $restarts -eq 0 ]] || FOUND_DETAILS+=", restarts $restarts"
  case $FOUND_STATE in
    exited | dead | restarting)
      FOUND_DETAILS+=", exit code $exit_code at ${finished%%.*}"
      [[ $oom != true ]] || FOUND_DETAILS+=' (out of memory)'
      ;;
  esac
  case $FOUND_STATE in
    created | exited | dead) FOUND=stopped ;;
    *) FOUND=running ;;
  esac
  [[ -n $FOUND_REST ]] || FOUND=foreign
  [[ $mode == single ]] || FOUND_MODEL=''
}

# Runs in the container. Prints what the entrypoint and the health check wrote: a line that says whether the server
# drains, then the config in force.
# shellcheck disable=SC2016 # the container's bash expands it
READ_STATE='. /usr/local/bin/server_config.sh && cd "${STATE_DIR:-$(get_state_dir)}" || exit
if [[ -e draining ]]; then echo draining; else echo serving; fi
[[ ! -e models.config ]] || cat models.config'

# docker_list_models: prints the names of the models of the config in force, one per line.
docker_list_models() {
  local pair
  if [[ -n $FOUND_MODEL ]]; then
    printf '%s\n' "$FOUND_MODEL"
  elif [[ -n $FOUND_CONFIG ]]; then
    docker_active_config | list_config_models /dev/stdin
  else
    for pair in $FOUND_MODELS; do
      printf '%s\n' "${pair%:*}"
    done
  fi
}

# docker_active_config: prints the config in force. The health check records a polled config only when its models are
# AVAILABLE; POLLED_CONFIG is what status has read.
docker_active_config() {
  if [[ -n ${POLLED_CONFIG:-} ]]; then
    printf '%s\n' "$POLLED_CONFIG"
  else
    query_docker exec "$FOUND_ID" bash -c "$READ_STATE" 2>/dev/null | sed 1d
  fi
}
docker_read_config() { query_docker exec "$FOUND_ID" cat "$FOUND_CONFIG" 2>&1; }
docker_is_draining() { [[ $(query_docker exec "$FOUND_ID" bash -c "$READ_STATE" 2>/dev/null) == draining* ]]; }
docker_is_polling() { [[ $(query_docker container inspect --format '{{.Args}}' "$FOUND_ID" 2>/dev/null) =~ $POLLING ]]; }
docker_reload_error() { :; } # only the log has it

docker_stop() {
  docker_within "$((FOUND_STOP_TIMEOUT + 15))" stop "$FOUND_ID" >/dev/null \
    || fail "docker stop failed or did not return within $((FOUND_STOP_TIMEOUT + 15)) s; any output is above"
  query_docker rm --force "$FOUND_ID" >/dev/null 2>&1 || true # gone already if it was run with --rm
}

# docker_discard: removes the container that this script created, or stops the one that it started again.
docker_discard() {
  read_container_id
  [[ -n $CONTAINER_ID ]] || return 0
  if [[ -n $KEEP_CONTAINER ]]; then
    docker_within 30 stop --time 1 "$CONTAINER_ID" >/dev/null 2>&1 || true
  else
    docker_within 30 rm --force "$CONTAINER_ID" >/dev/null 2>&1 || true
  fi
}

# docker_list: prints NAME|GRPC|REST|STATE for each of our containers.
docker_list() {
  local format='{{.Names}}|{{.Label "tfserving.grpc"}}|{{.Label "tfserving.rest"}}|{{.Status}}, {{.Image}}'
  query_docker ps --all --filter label=tfserving.rest --format "$format" || fail "docker ps failed; its output is above"
}

# docker_list_servers: prints the names of our running containers, one per line.
docker_list_servers() {
  docker_within 5 ps --filter label=tfserving.rest --format '{{.Names}}' 2>/dev/null || true
}
