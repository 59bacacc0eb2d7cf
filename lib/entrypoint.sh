#!/usr/bin/env bash
#
# PID 1 of the image: starts tensorflow_model_server and sees to it that a stop signal arrives.
#
# Usage: docker run IMAGE [SERVER_FLAG]...     serve; a flag given here wins over ours
#        docker run IMAGE COMMAND [ARG]...     run COMMAND instead of the server
#
# The server handles no signal, and the kernel keeps signals without a handler away from PID 1: with the
# server as PID 1, or behind a shell that does not forward, `docker stop` waits for its timeout and kills.
#
# From the environment, all set by the image:
#   MODE              single: MODEL_NAME under MODEL_BASE_PATH; multi: MODEL_BASE_PATH/models.config
#   MODEL_NAME        the model that MODE=single serves
#   MODEL_BASE_PATH   where the models are
#   DRAIN_SECONDS     how long to serve on after SIGTERM or SIGINT, reported unhealthy, so that a balancer
#                     can turn away first; a second signal ends the wait
#   STATE_DIR         where the health check reads what runs here and whether it drains
set -Eeuo pipefail

# Containers of one pod, or with the host's IPC, share /dev/shm (which is writable where the root is not):
# the mount namespace tells them apart, and a health check that is exec'ed into the container is in it too.
: "${STATE_DIR:=/dev/shm/tfserving-$(stat -Lc %i /proc/self/ns/mnt 2>/dev/null || true)}"

COMMAND=() # the server's command line
SERVER=''  # its process id
TIMER=''   # the process that ends the drain

say() { printf 'tfserving-entrypoint: %s\n' "$*" >&2; }

die() { # STATUS MESSAGE
  say "error: $2"
  exit "$1"
}

# flag_value NAME ARG...: the value of the last --NAME=VALUE, which is the one that the server takes.
flag_value() {
  local name=$1 arg value=''
  shift
  for arg; do
    [[ $arg != "--$name="* ]] || value=${arg#*=}
  done
  printf '%s\n' "$value"
}

check_settings() {
  local name
  for name in MODE MODEL_BASE_PATH DRAIN_SECONDS; do
    [[ -n ${!name:-} ]] || die 2 "$name is empty; the image sets it, give it a value or leave it alone"
  done
  [[ $DRAIN_SECONDS =~ ^[0-9]{1,5}$ ]] \
    || die 2 "DRAIN_SECONDS=$DRAIN_SECONDS is no whole number of seconds; give one such as 0 or 15"
  DRAIN_SECONDS=$((10#$DRAIN_SECONDS))
  case $MODE in
    single) [[ -n ${MODEL_NAME:-} ]] || die 2 "MODEL_NAME is empty; give the name of the model to serve" ;;
    multi) ;;
    *) die 2 "MODE=$MODE is unknown; it is single (one model) or multi (those of models.config)" ;;
  esac
}

# A mounted directory keeps its owner and mode; the server would only ever log that it finds no version there.
check_readable() { # PATH
  [[ ! -e $1 || (-r $1 && (! -d $1 || -x $1)) ]] \
    || die 1 "$1 cannot be read by user $(id -u); on the host: chmod -R a+rX on what is mounted there"
}

# build_command FLAG...: sets COMMAND. FLAGs come last, since the server takes the last of equal flags.
build_command() {
  local config
  COMMAND=(tensorflow_model_server --port=8500 --rest_api_port=8501 --grpc_max_threads=64)
  if [[ $MODE == single ]]; then
    COMMAND+=("--model_name=$MODEL_NAME" "--model_base_path=$MODEL_BASE_PATH/$MODEL_NAME")
    check_readable "$MODEL_BASE_PATH"
    check_readable "$MODEL_BASE_PATH/$MODEL_NAME"
  else
    COMMAND+=("--model_config_file=$MODEL_BASE_PATH/models.config")
  fi
  config=$(flag_value model_config_file "${COMMAND[@]}" "$@")
  if [[ -n $config ]]; then
    [[ -e $config ]] || die 2 "no models.config at $config; mount one there or set MODE=single"
    check_readable "$config"
    # Without it the server refuses a label at start-up, since no version is loaded yet.
    if grep -Eq '^[[:space:]]*([^#[:space:]].*)?version_labels' "$config"; then
      COMMAND+=(--allow_version_labels_for_unavailable_models=true)
    fi
  fi
  COMMAND+=("$@")
}

# What an earlier run of this container left is gone after this.
write_state() {
  local config
  if ! mkdir -p "$STATE_DIR" || ! rm -f "$STATE_DIR"/{command,models.config,draining} || [[ ! -w $STATE_DIR ]]; then
    die 1 "$STATE_DIR cannot be written; mount a tmpfs at /dev/shm or name a writable STATE_DIR"
  fi
  printf '%s\0' "${COMMAND[@]}" >"$STATE_DIR/command"
  # A server that does not poll goes on with the config it started with, whatever the file says later.
  config=$(flag_value model_config_file "${COMMAND[@]}")
  [[ -z $config ]] || cat "$config" >"$STATE_DIR/models.config"
}

# The handler of SIGTERM and SIGINT. It never waits: a second signal must get through.
stop() {
  : "${SERVER:=${!:-}}" # the signal may come between the start and its record
  [[ -n $SERVER ]] || exit 143
  : >"$STATE_DIR/draining"
  if [[ -z $TIMER ]] && ((DRAIN_SECONDS > 0)); then
    say "stopping in $DRAIN_SECONDS s; unhealthy from now on, a second signal stops at once"
    { sleep "$DRAIN_SECONDS" && kill -TERM "$SERVER"; } >/dev/null 2>&1 &
    TIMER=$!
  else
    say "stopping the server"
    cancel_timer
    kill -TERM "$SERVER" 2>/dev/null || true
  fi
}

cancel_timer() {
  [[ -z $TIMER ]] || kill "$TIMER" 2>/dev/null || true
}

# Returns the server's exit code, 128 + N when signal N ended it.
serve() {
  local code=0
  "${COMMAND[@]}" &
  SERVER=$!
  # A trapped signal ends `wait` with that signal's code while the server runs on; only the `wait` after
  # the server is gone tells the server's own. Bash reaps adopted orphans by itself.
  while kill -0 "$SERVER" 2>/dev/null; do
    wait "$SERVER" || true
  done
  wait "$SERVER" || code=$?
  cancel_timer
  return "$code"
}

main() {
  if [[ $# -gt 0 && $1 != -* ]]; then
    exec "$@"
  fi
  trap stop TERM INT # before all else, since PID 1 never hears of a signal that it has no handler for
  check_settings
  build_command "$@"
  write_state
  serve
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
