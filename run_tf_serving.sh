#!/usr/bin/env bash
#
# Runs a model server: a container of an image from build.sh or build_ensemble.sh, or the embedded server.
#
# Usage: bash run_tf_serving.sh [single|multi|restart] [--env-file FILE] [--dry-run] [-- SERVER_FLAG...]
#        bash run_tf_serving.sh update [--env-file FILE] [-- SERVER_FLAG...]
#        bash run_tf_serving.sh status|stop|list|rollback|logs [--follow] [--env-file FILE]
#
#   single      serve one model: MODEL_NAME
#   multi       serve the models of MODELS_CONFIG
#   status      print the versions of each model and their states; exit with 0 if every model has an AVAILABLE version
#   stop        stop the server; the embedded server finishes the requests in flight, tensorflow_model_server only
#               those that end within DRAIN_SECONDS; a second stop ends the drain immediately
#   restart     stop the server, if it runs, and start it with the settings and flags of its last start; variables that
#               are set now take precedence
#   update      docker: start a container with the settings of the last start on free ports, wait until its models are
#               AVAILABLE, then stop the old one; GRPC_PORT and REST_PORT choose the ports
#   rollback    docker: start the container from before the last update again, then stop the present one
#   logs        print the server's log; --follow waits for more
#   list        print the servers of this machine and their states
#   --env-file  read variables from FILE, a line NAME=VALUE each; those of the environment take precedence
#   --dry-run   check the settings and print the command, but do not run it
#   -- ...      flags for tensorflow_model_server, --NAME=VALUE; they override those of this script
#
# REPLICAS=N starts N servers, GPU=0,1 REPLICAS_PER_GPU=N starts N for each GPU: CONTAINER_NAME-1 and so on, on every
# second port from GRPC_PORT and REST_PORT. It prints their gRPC addresses as one list for a client. All commands then
# apply to all of these servers; CONTAINER_NAME=NAME-2 is one of them. update and rollback replace one container after
# another on its ports and GPU.
#
# Returns when every model has an AVAILABLE version. If a model fails to load, or that takes longer than START_TIMEOUT,
# it prints the server's log and leaves nothing running.
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)

# Write a value after := or set the variable in the environment, which takes precedence. The defaults of empty
# variables are in lib/settings.sh, for all scripts. Only values that you set are passed on to the server.
: "${MODE:=}"                                # single or multi, if the command line does not name one
: "${ENGINE:=}"                              # docker; embedded: without Docker; auto: docker if a daemon runs
: "${MODEL_NAME:=}"                          # single: the model; with docker, the model of the image
: "${IMAGE_NAME:=}"                          # docker: the image; the default depends on MODE
: "${CONTAINER_NAME:=}"                      # the server's name for status and stop, unique for each server
: "${MODELS_DIR:=}"                          # the directory of the models; docker: mounted over those of the image
: "${MODELS_CONFIG:=}"                       # multi: the config; docker: mounted over that of the image
: "${MODEL_CONFIG_FILE_POLL_WAIT_SECONDS:=}" # multi: how often to reload the config, in seconds; empty: never
: "${BIND_ADDRESS:=}"                        # the address to listen on; the server has no authentication
: "${GRPC_PORT:=}"                           # the port for gRPC
: "${REST_PORT:=}"                           # the port for REST
: "${GPU:=}"                                 # an index, a UUID or a list; empty: no GPU (docker), every GPU (embedded)
: "${GPU_MEMORY_FRACTION:=}"                 # share to use, such as 0.5; empty: all (docker), as needed (embedded)
: "${XLA:=}"                                 # true: compile functions with jit_compile; auto: all; empty: nothing
: "${REPLICAS_PER_GPU:=}"                    # servers for each GPU of the list GPU; empty: one server for all of them
: "${REPLICAS:=}"                            # without GPU: the number of servers; empty: one
: "${ENABLE_MODEL_WARMUP:=}"                 # true or false; empty: the server's default, true
: "${BATCHING_PARAMETERS_FILE:=}"            # enables batching with these parameters
: "${MONITORING_CONFIG_FILE:=}"              # enables Prometheus metrics with this config
: "${SSL_CONFIG_FILE:=}"                     # enables TLS for gRPC with this config
: "${RUN_DIR:=}"                             # the directory of logs and of the state of servers
: "${START_TIMEOUT:=}"                       # seconds until every model must have an AVAILABLE version
: "${DRAIN_SECONDS:=}"                       # docker: seconds to keep serving, marked unhealthy, after SIGTERM
: "${MAX_CONNECTION_AGE_SECONDS:=}"          # seconds after which a gRPC connection is closed; 0: never
: "${MAX_CONNECTION_AGE_GRACE_SECONDS:=}"    # seconds that calls on it may take to finish; empty: no limit
: "${RESTART_POLICY:=}"                      # docker: no, always, unless-stopped, on-failure or on-failure:N
: "${MEMORY:=}"                              # docker: memory limit, such as 4g, without swap; empty: none
: "${CPUS:=}"                                # docker: CPU limit, such as 1.5; empty: none
: "${DOCKER_ARGS:=}"                         # docker: more arguments for docker run, with shell quoting

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/python.sh
source "$ROOT/lib/python.sh"
# shellcheck source=lib/repository.sh
source "$ROOT/lib/repository.sh"
# shellcheck source=lib/server_status.sh
source "$ROOT/lib/server_status.sh"
# shellcheck source=lib/server_flags.sh
source "$ROOT/lib/server_flags.sh"
# shellcheck source=lib/gpus.sh
source "$ROOT/lib/gpus.sh"
# shellcheck source=lib/docker_engine.sh
source "$ROOT/lib/docker_engine.sh"
# shellcheck source=lib/embedded_engine.sh
source "$ROOT/lib/embedded_engine.sh"
# shellcheck source=lib/lock.sh
source "$ROOT/lib/lock.sh"
# shellcheck source=lib/settings_file.sh
source "$ROOT/lib/settings_file.sh"
# shellcheck source=lib/start.sh
source "$ROOT/lib/start.sh"
# shellcheck source=lib/inspect.sh
source "$ROOT/lib/inspect.sh"
# shellcheck source=lib/update.sh
source "$ROOT/lib/update.sh"
# shellcheck source=lib/replicas.sh
source "$ROOT/lib/replicas.sh"
# shellcheck source=lib/update_replicas.sh
source "$ROOT/lib/update_replicas.sh"

ACTION=run
DRY_RUN=''
ENV_FILE=''
FOLLOW=''
SERVER_FLAGS=()

parse_arguments() {
  local word=''
  while [[ $# -gt 0 ]]; do
    case $1 in
      single | multi | restart | update | rollback | stop | status | list | logs)
        [[ -z $word ]] || reject "$word and $1 are mutually exclusive; use one of single, multi, restart, update," \
          "rollback, stop, status, list, logs"
        word=$1
        ;;
      --env-file)
        [[ $# -gt 1 ]] || reject "--env-file needs a file"
        shift
        ENV_FILE=$1
        ;;
      --env-file=*) ENV_FILE=${1#*=} ;;
      --follow) FOLLOW=yes ;;
      --dry-run) DRY_RUN=yes ;;
      --)
        shift
        SERVER_FLAGS=("$@")
        break
        ;;
      *) handle_option "$1" ;;
    esac
    shift
  done
  case $word in
    single | multi) MODE=$word SET_BY_USER+='MODE ' ;;
    ?*) ACTION=$word ;;
  esac
  [[ -z $FOLLOW || $ACTION == logs ]] || reject "--follow is an option of logs only; omit it"
  case $ACTION in
    run | restart) ;;
    update) [[ -z $DRY_RUN ]] || reject "update does not support --dry-run; use it with restart" ;;
    *)
      [[ -z $DRY_RUN ]] || reject "$ACTION does not support --dry-run; use it with single, multi or restart"
      [[ ${#SERVER_FLAGS[@]} -eq 0 ]] || reject "$ACTION takes no server flags; omit them"
      ;;
  esac
}

# load_files: takes what the command line and the environment do not set from --env-file and from the last start.
load_files() {
  local flags=()
  if [[ -n $ENV_FILE ]]; then
    load_settings "$ENV_FILE"
    flags=(${FILE_FLAGS[@]+"${FILE_FLAGS[@]}"})
  fi
  check_run_dir
  case $ACTION in
    restart | update)
      load_remembered
      flags=(${FILE_FLAGS[@]+"${FILE_FLAGS[@]}"} ${flags[@]+"${flags[@]}"})
      ;;
    rollback)
      CONTAINER_NAME+=-previous
      [[ ! -e $(remembered_file) ]] || load_remembered
      ;;
  esac
  SERVER_FLAGS=(${flags[@]+"${flags[@]}"} ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"})
}

check_server_settings() {
  check_variables
  check_choice MODE mode single multi
  check_choice ENGINE engine auto docker embedded
  check_choice ENABLE_MODEL_WARMUP value '' true false
  check_pattern CONTAINER_NAME '^[a-zA-Z0-9][a-zA-Z0-9_.-]+$' 'container name' \
    "two or more letters, digits, '_', '.' and '-'; must start with a letter or a digit"
  check_container_settings
  check_bind_address
  check_ports
  check_gpu
  check_xla
  check_replicas
  check_seconds DRAIN_SECONDS
  check_seconds MAX_CONNECTION_AGE_SECONDS
  check_seconds MAX_CONNECTION_AGE_GRACE_SECONDS
  check_seconds START_TIMEOUT
  check_seconds MODEL_CONFIG_FILE_POLL_WAIT_SECONDS
  check_file BATCHING_PARAMETERS_FILE
  check_file MONITORING_CONFIG_FILE
  check_file SSL_CONFIG_FILE
  check_model_name
  set_image_name
  check_server_flags
}

# check_models: checks what the engine will read from this machine's disk rather than from an image.
check_models() {
  if [[ $ENGINE == embedded ]] || is_set MODELS_DIR; then
    resolve_models_dir
    if [[ $MODE == single ]] && { [[ $ENGINE == embedded ]] || is_set MODEL_NAME; }; then
      check_model_directory
    fi
  elif ! is_set MODELS_CONFIG; then
    return 0
  fi
  [[ $MODE == single ]] || check_config
}

check_config() {
  local arguments=(check "--config=$MODELS_CONFIG")
  check_file MODELS_CONFIG
  ! is_json "$MODELS_CONFIG" || reject "$(quoted "$MODELS_CONFIG") is JSON, and the server reads protobuf text" \
    "format; convert it: python -m tfserving format --config=$(quoted "$MODELS_CONFIG") >NEW_CONFIG"
  [[ -n $(list_config_models "$MODELS_CONFIG") ]] || reject "$(quoted "$MODELS_CONFIG") names no model, or is not" \
    "protobuf text format; models/models.config is an example"
  find_python google.protobuf || return 0 # the docker engine works without Python
  [[ $ENGINE == docker ]] && ! is_set MODELS_DIR || arguments+=("--models-dir=$MODELS_DIR")
  run_tfserving "${arguments[@]}" >/dev/null || reject "nothing was started; fix the errors above"
}

# log_notes: settings that have no effect, or a larger one than the user may expect.
log_notes() {
  local name names=''
  case $MODE in single) names+=' MODELS_CONFIG MODEL_CONFIG_FILE_POLL_WAIT_SECONDS' ;; esac
  case $ENGINE in
    embedded) names+=' RESTART_POLICY DRAIN_SECONDS MEMORY CPUS DOCKER_ARGS' ;;
    docker) log_embedded_flags ;;
  esac
  for name in $names; do
    ! is_set "$name" || log "note: $name has no effect here ($MODE, $ENGINE)"
  done
  [[ $ENGINE == embedded || $DRAIN_SECONDS -eq 0 || $DRAIN_SECONDS -gt $UNHEALTHY_AFTER ]] \
    || log "note: DRAIN_SECONDS=$DRAIN_SECONDS ends before Docker reports the container unhealthy, which takes up to" \
      "$UNHEALTHY_AFTER s; set it to more, or let the load balancer run tfserving-healthcheck"
  [[ -z $MAX_CONNECTION_AGE_GRACE_SECONDS || $MAX_CONNECTION_AGE_SECONDS -gt 0 ]] \
    || log "note: MAX_CONNECTION_AGE_GRACE_SECONDS has no effect without MAX_CONNECTION_AGE_SECONDS"
  [[ $MODE == single || $ENGINE == embedded ]] || ! is_set MODEL_CONFIG_FILE_POLL_WAIT_SECONDS \
    || is_set MODELS_DIR || is_set MODELS_CONFIG \
    || log "note: the config in the image never changes; set MODELS_DIR or MODELS_CONFIG to poll a file"
  [[ -z $SSL_CONFIG_FILE || -z $(find -L "$SSL_CONFIG_FILE" -prune -perm -004) ]] \
    || log "warning: $(quoted "$SSL_CONFIG_FILE") contains a private key, and every user of this machine can read it;" \
      "run chmod o= on it"
  case $BIND_ADDRESS in
    127.* | ::1) ;;
    *) log "note: $BIND_ADDRESS is reachable from other machines, and the server has no authentication" ;;
  esac
}

resolve_engine() {
  case $ENGINE in
    docker)
      probe_docker || [[ -n $DRY_RUN ]] \
        || fail "ENGINE=docker, but $REASON; $DOCKER_FIX, or set ENGINE=embedded"
      ;;
    auto)
      if probe_docker; then
        ENGINE=docker
        log "engine: docker $ENGINE_VERSION"
      else
        [[ -n $NO_DOCKER ]] || fail "$REASON; $DOCKER_FIX, or set ENGINE=embedded to serve without docker"
        ENGINE=embedded
        log "engine: embedded ($REASON)"
      fi
      ;;
  esac
}

# find_server: sets FOUND_... for CONTAINER_NAME, and ENGINE to the engine that runs it; fails if it cannot know.
find_server() {
  embedded_find
  if [[ $ENGINE != docker && -n $FOUND ]]; then
    ENGINE=embedded
    return
  fi
  [[ $ENGINE != embedded ]] || return 0
  if ! probe_docker; then
    [[ $ENGINE == docker || ($NO_DOCKER != not-installed && $(remembered ENGINE) != embedded) ]] || return 0
    fail "cannot tell whether $CONTAINER_NAME is running: $REASON; $DOCKER_FIX, or set ENGINE=embedded if it is" \
      "an embedded server"
  fi
  docker_find
  [[ -z $FOUND ]] || ENGINE=docker
}

# require_server: fails unless CONTAINER_NAME exists.
require_server() {
  local others
  find_server
  if [[ $FOUND == foreign ]]; then
    log "container $CONTAINER_NAME was not started by this script; use docker to inspect or stop it"
    return 1
  fi
  [[ -z $FOUND ]] || return 0
  others=''
  [[ -n $REPLICA ]] || others=$(docker_list_servers && embedded_list_servers)
  log "$CONTAINER_NAME is not running${others:+; set CONTAINER_NAME to one of $(tr '\n' ' ' <<<"$others")}"
  [[ $ENGINE == docker || -z $FOUND_EXITED ]] \
    || log "its process $FOUND_EXITED has exited; its log: $(embedded_log_command)"
  return 1
}

log_interrupted_stop() {
  log "interrupted: $CONTAINER_NAME has received the stop signal and exits when its drain is over;" \
    "another stop ends the drain immediately"
}

trap_interrupted_stop() {
  trap 'log_interrupted_stop; exit 130' INT
  trap 'log_interrupted_stop; exit 143' TERM HUP
}

stop() {
  if has_replicas; then
    trap_interrupted_stop
    for_all_replicas stop_server
  else
    stop_server
  fi
}

stop_server() {
  require_server || return 0
  [[ $ENGINE != docker ]] || ! docker_is_draining \
    || log "note: $CONTAINER_NAME is draining already; this stop ends the drain, and requests in flight fail"
  trap_interrupted_stop
  "${ENGINE}_stop"
  [[ $ENGINE != docker ]] || remove_previous
  log "stopped $CONTAINER_NAME"
}

main() {
  parse_arguments "$@"
  load_files
  check_server_settings
  "$ACTION"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
