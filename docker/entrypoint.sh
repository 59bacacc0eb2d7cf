#!/usr/bin/env bash
#
# PID 1 of the image: starts tensorflow_model_server and forwards stop signals to it.
#
# Usage: docker run IMAGE [SERVER_FLAG]...     serve; these flags override the default ones
#        docker run IMAGE COMMAND [ARG]...     run COMMAND instead of the server
#
# The server installs no signal handlers, and the kernel does not deliver unhandled signals to PID 1. With the
# server as PID 1, or behind a shell that does not forward signals, `docker stop` waits for its timeout and kills.
#
# Environment variables, with defaults from the image:
#   MODE              single: serve MODEL_NAME; multi: serve the models of MODEL_BASE_PATH/models.config
#   MODEL_NAME        the model to serve in single mode
#   MODEL_BASE_PATH   the directory of the models
#   DRAIN_SECONDS     seconds to keep serving, marked unhealthy, after SIGTERM or SIGINT, so that load balancers can
#                     remove the server first; a second signal ends the drain
#   MAX_CONNECTION_AGE_SECONDS
#                     seconds after which a gRPC connection is closed, so that clients resolve the name again; 0: never
#   MAX_CONNECTION_AGE_GRACE_SECONDS
#                     seconds that calls on such a connection may take to finish; empty: no limit
#   STATE_DIR         where the health check finds the server's command line and whether it drains
set -Eeuo pipefail

# shellcheck source=docker/server_config.sh
source "${BASH_SOURCE[0]%/*}/server_config.sh"

: "${STATE_DIR:=$(get_state_dir)}"

COMMAND=()     # the server's command line
SERVER_PID=''  # its process id
DRAIN_TIMER='' # the process that ends the drain

log() { printf 'tfserving-entrypoint: %s\n' "$*" >&2; }

die() { # EXIT_CODE MESSAGE
  log "error: $2"
  exit "$1"
}

check_environment() {
  local name
  for name in MODE MODEL_BASE_PATH DRAIN_SECONDS; do
    [[ -n ${!name:-} ]] || die 2 "$name is empty; set it, or do not override the image's value"
  done
  [[ $DRAIN_SECONDS =~ ^[0-9]{1,5}$ ]] \
    || die 2 "DRAIN_SECONDS=$DRAIN_SECONDS is not a valid number of seconds (0-99999)"
  DRAIN_SECONDS=$((10#$DRAIN_SECONDS))
  for name in MAX_CONNECTION_AGE_SECONDS MAX_CONNECTION_AGE_GRACE_SECONDS; do
    [[ ${!name:-} =~ ^[0-9]{0,5}$ ]] || die 2 "$name=${!name} is not a valid number of seconds (0-99999)"
    printf -v "$name" '%s' "${!name:+$((10#${!name}))}"
  done
  case $MODE in
    single) [[ -n ${MODEL_NAME:-} ]] || die 2 "MODEL_NAME is empty; set it to the name of the model to serve" ;;
    multi) ;;
    *) die 2 "MODE=$MODE is not a valid mode (single, multi)" ;;
  esac
}

# The server would only log that it finds no versions in a mounted directory that its user cannot read.
check_readable() { # PATH
  [[ ! -e $1 || (-r $1 && (! -d $1 || -x $1)) ]] \
    || die 1 "user $(id -u) cannot read $1; run chmod -R a+rX on the mounted directory on the host"
}

# warn_about_unreadable_versions: the server may not need them, and would only report a failed load.
warn_about_unreadable_versions() {
  local version
  for version in "$MODEL_BASE_PATH"/*/[0-9]*; do
    [[ ! -e $version || (-r $version && -x $version && (! -e $version/saved_model.pb || -r $version/saved_model.pb)) ]] \
      || log "warning: user $(id -u) cannot read $version; run chmod -R a+rX on it on the host"
  done
}

# warn_about_flags FLAG...: a warning only, since the base image may have a newer server with more flags.
warn_about_flags() {
  local flag problem
  for flag; do
    problem=$(explain_ignored_flag "$flag")
    [[ -z $problem ]] || log "warning: $problem"
  done
}

# set_server_command FLAG...: sets COMMAND. FLAGs come last, since the server uses the last of equal flags.
set_server_command() {
  local config age
  COMMAND=(tensorflow_model_server --port=8500 --rest_api_port=8501 --grpc_max_threads=64 "${LOAD_RETRY_FLAGS[@]}")
  if [[ $MODE == single ]]; then
    COMMAND+=("--model_name=$MODEL_NAME" "--model_base_path=$MODEL_BASE_PATH/$MODEL_NAME")
    check_readable "$MODEL_BASE_PATH"
    check_readable "$MODEL_BASE_PATH/$MODEL_NAME"
  else
    COMMAND+=("--model_config_file=$MODEL_BASE_PATH/models.config")
  fi
  config=$(get_flag model_config_file "${COMMAND[@]}" "$@")
  if [[ -n $config ]]; then
    [[ -e $config ]] || die 2 "$config does not exist; mount a models.config there or set MODE=single"
    [[ -f $config ]] || die 2 "$config is not a regular file; mount a models.config there or set MODE=single"
    check_readable "$config"
    # At startup no version is loaded yet, and the server rejects labels of unavailable versions by default.
    if grep -Eq '^[[:space:]]*([^#[:space:]].*)?version_labels' <"$config"; then
      COMMAND+=(--allow_version_labels_for_unavailable_models=true)
    fi
  fi
  COMMAND+=("$@")
  age=$(connection_age_flag "$MAX_CONNECTION_AGE_SECONDS" "$MAX_CONNECTION_AGE_GRACE_SECONDS" "$@")
  [[ -z $age ]] || COMMAND+=("$age")
}

# write_state: replaces the state that an earlier run of this container left.
write_state() {
  local config
  if ! mkdir -p "$STATE_DIR" || ! rm -f "$STATE_DIR"/{command,models.config,draining} || [[ ! -w $STATE_DIR ]]; then
    die 1 "STATE_DIR=$STATE_DIR is not writable; mount a tmpfs at /dev/shm or set STATE_DIR to a writable directory"
  fi
  printf '%s\0' "${COMMAND[@]}" >"$STATE_DIR/command"
  # Without polling the server keeps the config that it started with, even if the file changes.
  config=$(get_flag model_config_file "${COMMAND[@]}")
  [[ -z $config ]] || cat <"$config" >"$STATE_DIR/models.config"
}

# handle_stop: handles SIGTERM and SIGINT. It never waits, so that a second signal is handled too.
handle_stop() {
  : "${SERVER_PID:=${!:-}}" # the signal may arrive after the start and before SERVER_PID is set
  [[ -n $SERVER_PID ]] || exit 143
  : >"$STATE_DIR/draining"
  if [[ -z $DRAIN_TIMER ]] && ((DRAIN_SECONDS > 0)); then
    log "stopping in $DRAIN_SECONDS s; the health check fails from now on, a second signal stops immediately"
    { sleep "$DRAIN_SECONDS" && kill -TERM "$SERVER_PID"; } >/dev/null 2>&1 &
    DRAIN_TIMER=$!
  else
    log "stopping the server"
    cancel_drain_timer
    kill -TERM "$SERVER_PID" 2>/dev/null || true
  fi
}

cancel_drain_timer() {
  [[ -z $DRAIN_TIMER ]] || kill "$DRAIN_TIMER" 2>/dev/null || true
}

# serve: returns the server's exit code, or 128 + N if signal N ended it.
serve() {
  local code=0
  "${COMMAND[@]}" &
  SERVER_PID=$!
  # A trapped signal interrupts `wait` while the server still runs. Only a `wait` after the server has exited
  # returns the server's own code.
  while kill -0 "$SERVER_PID" 2>/dev/null; do
    wait "$SERVER_PID" || true
  done
  wait "$SERVER_PID" || code=$?
  cancel_drain_timer
  return "$code"
}

main() {
  if [[ $# -gt 0 && $1 != -* ]]; then
    exec "$@"
  fi
  trap handle_stop TERM INT # first, since PID 1 never receives a signal that it does not handle
  check_environment
  warn_about_flags "$@"
  warn_about_unreadable_versions
  set_server_command "$@"
  write_state
  serve
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
