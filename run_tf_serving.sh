#!/usr/bin/env bash
#
# Runs a model server: a container of an image that build.sh or build_ensemble.sh made, or the embedded server.
#
# Usage: bash run_tf_serving.sh [single|multi] [--dry-run] [-- SERVER_FLAG...]
#        bash run_tf_serving.sh status|stop
#
#   single      one model: MODEL_NAME
#   multi       the models of MODELS_CONFIG
#   status      shows the versions of each model and their states; exits 0 when every model is AVAILABLE
#   stop        ends the server in order
#   --dry-run   check the settings and print the command, without running it
#   -- ...      flags of tensorflow_model_server; they win over those of this script
#
# Returns when every model is AVAILABLE. Ends with what the server logged, and nothing left running, when one is
# not in time.
set -Eeuo pipefail

DOOR=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$DOOR")" && pwd)

# Write a value after := or give the variable in the environment, which wins. What is left empty has its default
# in lib/settings.sh, where a value holds for every script. Only what is given here or there is passed on.
: "${MODE:=}"                                # single or multi, when the command line does not say
: "${ENGINE:=}"                              # docker; embedded: without Docker; auto: docker where it answers
: "${MODEL_NAME:=}"                          # single: the model; with docker the one that the image holds
: "${IMAGE_NAME:=}"                          # docker: the image
: "${CONTAINER_NAME:=}"                      # the server's name for status and stop, one for each server
: "${MODELS_DIR:=}"                          # docker: mounted over the baked models; embedded: where they are
: "${MODELS_CONFIG:=}"                       # multi: the config; docker: mounted in place of the baked one
: "${MODEL_CONFIG_FILE_POLL_WAIT_SECONDS:=}" # multi: how often the config is read again; empty: never
: "${BIND_ADDRESS:=}"                        # where to listen; the server has no authentication, so think twice
: "${GRPC_PORT:=}"                           # the port for gRPC
: "${REST_PORT:=}"                           # the port for HTTP
: "${GPU:=}"                                 # an index, a UUID or a list such as 0,1; empty: no GPU is passed on
: "${GPU_MEMORY_FRACTION:=}"                 # how much of a GPU's memory to take, such as 0.5; empty: all
: "${ENABLE_MODEL_WARMUP:=}"                 # true or false; empty: as the server does, which is true
: "${BATCHING_PARAMETERS_FILE:=}"            # turns batching on, with these parameters
: "${MONITORING_CONFIG_FILE:=}"              # turns Prometheus metrics on, as it says
: "${SSL_CONFIG_FILE:=}"                     # TLS for gRPC
: "${START_TIMEOUT:=}"                       # how many seconds the models may take to become AVAILABLE
: "${DRAIN_SECONDS:=}"                       # docker: how long to serve on, reported unhealthy, when stopped
: "${RESTART_POLICY:=}"                      # docker: no, always, unless-stopped, on-failure or on-failure:N
: "${DOCKER_ARGS:=}"                         # docker: more arguments for docker run, quoted as in a shell

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/versions.sh
source "$ROOT/lib/versions.sh"
# shellcheck source=lib/rest.sh
source "$ROOT/lib/rest.sh"
# shellcheck source=lib/docker.sh
source "$ROOT/lib/docker.sh"
# shellcheck source=lib/embedded.sh
source "$ROOT/lib/embedded.sh"

ACTION=run
DRY_RUN=''
SERVER_FLAGS=()

parse_arguments() {
  local word=''
  while [[ $# -gt 0 ]]; do
    case $1 in
      single | multi | stop | status)
        [[ -z $word ]] || misuse "$word and $1 do not go together; give one of single, multi, stop, status"
        word=$1
        ;;
      --dry-run) DRY_RUN=yes ;;
      --help | -h)
        usage
        exit
        ;;
      --)
        shift
        SERVER_FLAGS=("$@")
        break
        ;;
      *) misuse "unknown argument $(quoted "$1"); --help shows the usage (flags for the server come after --)" ;;
    esac
    shift
  done
  case $word in
    single | multi) MODE=$word ;;
    stop | status) ACTION=$word ;;
  esac
  [[ $ACTION == run || -z $DRY_RUN ]] || misuse "$ACTION has no dry run; --dry-run goes with single and multi"
  [[ $ACTION == run || ${#SERVER_FLAGS[@]} -eq 0 ]] || misuse "$ACTION takes no flags for the server"
}

# What this script has to know itself is set by a variable; any other flag is the server's business.
check_server_flags() {
  local flag name
  for flag in ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}; do
    case ${flag%%=*} in
      --port | -port) name=GRPC_PORT ;;
      --rest_api_port | -rest_api_port) name=REST_PORT ;;
      --model_name | -model_name) name=MODEL_NAME ;;
      --model_config_file | -model_config_file) name=MODELS_CONFIG ;;
      --model_base_path | -model_base_path | --models_dir) name=MODELS_DIR ;;
      --host) name=BIND_ADDRESS ;;
      -*) continue ;;
      *) misuse "$(quoted "$flag") after -- is no flag; the server takes --NAME=VALUE, in one word" ;;
    esac
    misuse "${flag%%=*} is set by this script; give $name=$(quoted "${flag#*=}") instead"
  done
}

check_settings() {
  check_control_characters
  check_mode
  check_engine
  check_container_name
  check_bind_address
  check_ports
  check_gpu
  check_gpu_memory_fraction
  check_enable_model_warmup
  check_restart_policy
  check_seconds DRAIN_SECONDS
  check_seconds START_TIMEOUT
  check_seconds MODEL_CONFIG_FILE_POLL_WAIT_SECONDS
  check_file BATCHING_PARAMETERS_FILE
  check_file MONITORING_CONFIG_FILE
  check_file SSL_CONFIG_FILE
  check_model_name "$MODEL_NAME" MODEL_NAME
  setting_of_image
  check_server_flags
}

# What the engine would find on this machine's disk, and not in an image.
check_models() {
  if [[ $ENGINE == embedded ]] || chosen MODELS_DIR; then
    [[ -d $MODELS_DIR ]] || misuse "MODELS_DIR=$(quoted "$MODELS_DIR") is no directory; make one with" \
      "$(export_command "$MODEL_NAME"), or bash quickstart.sh for the examples"
    MODELS_DIR=$(absolute_directory "$MODELS_DIR")
    if [[ $MODE == single ]] && { [[ $ENGINE == embedded ]] || chosen MODEL_NAME; }; then
      check_model_directory "$MODEL_NAME"
    fi
  elif ! chosen MODELS_CONFIG; then
    return 0
  fi
  [[ $MODE == single ]] || check_config
}

check_config() {
  check_file MODELS_CONFIG
  ! looks_like_json "$MODELS_CONFIG" \
    || misuse "$(quoted "$MODELS_CONFIG") is JSON, which the server does not read; convert it:" \
      "python -m tfserving.repository format --config=$(quoted "$MODELS_CONFIG") >NEW_CONFIG"
  [[ -n $(in_image model_names "$MODELS_CONFIG" | tr '\0' '\n') ]] \
    || misuse "$(quoted "$MODELS_CONFIG") names no model, or is no protobuf text format; see models/models.config"
  # Docker does without Python, and the models of an image are not here to be looked at.
  have_python google.protobuf || return 0
  local arguments=(check "--config=$MODELS_CONFIG")
  [[ $ENGINE == docker ]] && ! chosen MODELS_DIR || arguments+=("--models-dir=$MODELS_DIR")
  repository "${arguments[@]}" >/dev/null || misuse "nothing is started; mend what is named above"
}

# What has no effect, or more than one might think, is said.
note_effects() {
  local name names=''
  case $MODE in single) names+=' MODELS_CONFIG MODEL_CONFIG_FILE_POLL_WAIT_SECONDS' ;; esac
  case $ENGINE in embedded) names+=' RESTART_POLICY DRAIN_SECONDS DOCKER_ARGS' ;; esac
  for name in $names; do
    ! chosen "$name" || note "note: $name has no effect here ($MODE, $ENGINE)"
  done
  [[ $MODE == single || $ENGINE == embedded ]] || ! chosen MODEL_CONFIG_FILE_POLL_WAIT_SECONDS \
    || chosen MODELS_DIR || chosen MODELS_CONFIG \
    || note "note: the config in the image never changes; give MODELS_DIR or MODELS_CONFIG to poll one that does"
  case $BIND_ADDRESS in
    127.* | ::1) ;;
    *) note "note: $BIND_ADDRESS can be reached from other machines, and the server has no authentication" ;;
  esac
}

choose_engine() {
  case $ENGINE in
    docker) docker_answers || [[ -n $DRY_RUN ]] || fail "ENGINE=docker, but $WHY_NOT; start it, or ENGINE=embedded" ;;
    embedded) ;;
    auto)
      if docker_answers; then
        ENGINE=docker
        note "engine: docker $ENGINE_VERSION"
      else
        ENGINE=embedded
        note "engine: embedded, since $WHY_NOT"
      fi
      ;;
  esac
}

# add_flags ADD_FILE: adds to FLAGS what the user chose; ADD_FILE VARIABLE FLAG is how the engine takes a file.
add_flags() {
  [[ $MODE == single || -z $MODEL_CONFIG_FILE_POLL_WAIT_SECONDS ]] \
    || FLAGS+=("--model_config_file_poll_wait_seconds=$MODEL_CONFIG_FILE_POLL_WAIT_SECONDS")
  [[ -z $ENABLE_MODEL_WARMUP ]] || FLAGS+=("--enable_model_warmup=$ENABLE_MODEL_WARMUP")
  [[ -z $GPU_MEMORY_FRACTION ]] || FLAGS+=("--per_process_gpu_memory_fraction=$GPU_MEMORY_FRACTION")
  [[ -z $BATCHING_PARAMETERS_FILE ]] || FLAGS+=(--enable_batching=true)
  "$1" BATCHING_PARAMETERS_FILE batching_parameters_file
  "$1" MONITORING_CONFIG_FILE monitoring_config_file
  "$1" SSL_CONFIG_FILE ssl_config_file
}

# find_server: sets FOUND… for CONTAINER_NAME, and ENGINE to the engine that has it, if one has.
find_server() {
  embedded_find
  if [[ $ENGINE != docker && -n $FOUND ]]; then
    ENGINE=embedded
    return
  fi
  case $ENGINE in
    embedded) return ;;
    docker) docker_answers || fail "ENGINE=docker, but $WHY_NOT; start it" ;;
    auto) docker_answers || return 0 ;;
  esac
  docker_find
  [[ -z $FOUND ]] || ENGINE=docker
}

check_name_is_free() {
  local mend
  mend="stop it with $(door_command run_tf_serving.sh CONTAINER_NAME) stop, or give another CONTAINER_NAME, GRPC_PORT"
  mend+=" and REST_PORT"
  embedded_find
  [[ -z $FOUND ]] \
    || misuse "$CONTAINER_NAME runs already (embedded, gRPC $FOUND_GRPC, REST $FOUND_REST); $mend"
  [[ $ENGINE == docker ]] || return 0
  docker_find
  case $FOUND in
    running) misuse "$CONTAINER_NAME runs already (docker, gRPC $FOUND_GRPC, REST $FOUND_REST); $mend" ;;
    foreign) misuse "there is a container $CONTAINER_NAME that is not ours; give another CONTAINER_NAME" ;;
  esac
}

port_taken() { # PORT BY_WHOM
  local name=GRPC_PORT
  [[ $1 == "$GRPC_PORT" ]] || name=REST_PORT
  misuse "port $1 is in use by $2; stop that, or give another: $name=$(($1 < 65000 ? $1 + 100 : $1 - 100))"
}

check_ports_are_free() {
  local port
  for port in "$GRPC_PORT" "$REST_PORT"; do
    ! port_answers "$(reachable "$BIND_ADDRESS")" "$port" || port_taken "$port" "another program"
  done
}

# What ends this door while the server starts takes the server with it.
give_up() { # EXIT_CODE
  trap - EXIT INT TERM HUP
  "${ENGINE}_discard"
  exit "$1"
}

# wait_until_available: returns when every model is; else ends the door with the server's log.
wait_until_available() {
  local deadline=$((SECONDS + START_TIMEOUT)) address missing said='' names='' ended=''
  local models=()
  address=$(reachable "$BIND_ADDRESS")
  while :; do
    "${ENGINE}_runs" || ended='the server ended'
    if [[ -z $names ]]; then
      names=$("${ENGINE}_models") || names=''
      # shellcheck disable=SC2206 # names have no blanks
      models=($names)
    fi
    missing='the server is starting'
    [[ -z $names ]] || missing=$(first_unavailable "$address" "$REST_PORT" "${models[@]}")
    [[ -n $missing || -n $ended ]] || return 0
    [[ $SECONDS -lt $deadline ]] || ended=${ended:-"not AVAILABLE within START_TIMEOUT=$START_TIMEOUT s; $missing"}
    [[ -z $ended ]] || break
    [[ $missing == "$said" ]] || note "waiting for $missing"
    said=$missing
    sleep 0.2
  done
  note "the end of the server's log:"
  "${ENGINE}_log" >&2 || true
  note "error: $ended; what it logged is above"
  give_up 1
}

run() {
  local where
  choose_engine
  check_models
  note_effects
  if [[ -z $DRY_RUN ]]; then
    check_name_is_free
    "${ENGINE}_prepare"
  fi
  "${ENGINE}_command" ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
  if [[ -n $DRY_RUN ]]; then
    print_command "${COMMAND[@]}"
    return
  fi
  check_ports_are_free
  trap 'give_up 1' EXIT
  trap 'give_up 130' INT
  trap 'give_up 143' TERM HUP
  "${ENGINE}_start"
  wait_until_available
  trap - EXIT INT TERM HUP
  where=$(reachable "$BIND_ADDRESS")
  note "serving: gRPC $(host_port "$where" "$GRPC_PORT"), REST http://$(host_port "$where" "$REST_PORT")/v1/models/…"
  note "log: $("${ENGINE}_log_command"); models: $(door_command run_tf_serving.sh CONTAINER_NAME) status"
}

# Ends the door with exit code 1 unless CONTAINER_NAME is there.
require_server() {
  local others
  find_server
  [[ -z $FOUND || $FOUND == foreign ]] || return 0
  others=$(docker_others && embedded_others)
  note "$CONTAINER_NAME is not running${others:+; give one of these as CONTAINER_NAME: $(tr '\n' ' ' <<<"$others")}"
  return 1
}

stop() {
  require_server || return 0
  "${ENGINE}_stop"
  note "$CONTAINER_NAME has ended"
}

status() {
  local host port model states code=0
  require_server || return 1
  if [[ $FOUND == dead ]]; then
    note "$CONTAINER_NAME has ended; its log: $("${ENGINE}_log_command")"
    return 1
  fi
  printf '%s: %s, gRPC %s, REST %s%s\n' "$CONTAINER_NAME" "$ENGINE" "$FOUND_GRPC" "$FOUND_REST" \
    "${FOUND_HEALTH:+, $FOUND_HEALTH}"
  host=${FOUND_REST%:*} port=${FOUND_REST##*:}
  host=${host#\[} host=$(reachable "${host%\]}")
  for model in $("${ENGINE}_models"); do
    if states=$(model_states "$host" "$port" "$model"); then
      printf '%s\n' "$states" | while read -r version state; do
        printf '%-24s %8s  %s\n' "$model" "$version" "$state"
      done
    else
      printf '%-24s %8s  %s\n' "$model" - 'no answer'
    fi
    [[ ${states:-} == *' AVAILABLE'* ]] || code=1
  done
  return "$code"
}

main() {
  parse_arguments "$@"
  check_settings
  "$ACTION"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
