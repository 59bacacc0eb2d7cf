# shellcheck shell=bash
# The embedded engine, without Docker: python -m tfserving.server in the background. It has the functions that
# docker_engine.sh lists. State is in RUN_DIR: CONTAINER_NAME.pid, .command (one argument per line) and .log.

SERVER_PID=''   # the server's process id
PREVIOUS_JOB='' # $! before this script started the server

embedded_file() { printf '%s/%s.%s' "$RUN_DIR" "$CONTAINER_NAME" "$1"; }
create_file() { create_private "$(embedded_file "$1")" || fail "cannot write $(quoted "$(embedded_file "$1")")"; }

# embedded_add_file NAME FLAG: adds FLAG with the file of the variable NAME to FLAGS, if the user set it.
embedded_add_file() {
  [[ -z ${!1} ]] || FLAGS+=("--$2=$(absolute_file "${!1}")")
}

# embedded_command FLAG...: sets COMMAND.
embedded_command() {
  local age
  FLAGS=()
  require_python tensorflow google_crc32c grpc grpc_health grpc_reflection httptools orjson uvloop numpy google.protobuf
  COMMAND=(env "PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}")
  [[ -z $GPU ]] || COMMAND+=("CUDA_VISIBLE_DEVICES=$GPU")
  COMMAND+=("$PYTHON" -m tfserving.server)
  case $MODE in
    single) FLAGS+=("--model_name=$MODEL_NAME" "--model_base_path=/models/$MODEL_NAME") ;;
    # As in the image, a label may exist before its version is loaded.
    multi)
      FLAGS+=("--model_config_file=$(absolute_file "$MODELS_CONFIG")")
      FLAGS+=(--allow_version_labels_for_unavailable_models=true)
      ;;
  esac
  add_setting_flags embedded_add_file
  [[ $XLA != auto ]] || FLAGS+=(--xla_auto_jit=true)
  COMMAND+=("--host=$BIND_ADDRESS" "--port=$GRPC_PORT" "--rest_api_port=$REST_PORT" "--models_dir=$MODELS_DIR")
  COMMAND+=("${LOAD_RETRY_FLAGS[@]}")
  COMMAND+=("${FLAGS[@]}" "$@")
  age=$(connection_age_flag "$MAX_CONNECTION_AGE_SECONDS" "$MAX_CONNECTION_AGE_GRACE_SECONDS" "$@")
  [[ -z $age ]] || COMMAND+=("$age")
}

embedded_prepare() { check_gpus_exist; }

embedded_start() {
  create_file command
  create_file log
  printf '%s\n' "${COMMAND[@]}" >"$(embedded_file command)"
  # Without polling, the server keeps the config that it starts with, even if the file changes.
  [[ $MODE == single ]] || create_file config
  [[ $MODE == single ]] || cat <"$MODELS_CONFIG" >"$(embedded_file config)"
  set -m # a process group for the server, so that Ctrl-C in this terminal does not stop it
  PREVIOUS_JOB=${!:-}
  nohup "${COMMAND[@]}" </dev/null >"$(embedded_file log)" 2>&1 &
  SERVER_PID=$!
  set +m
  disown "$SERVER_PID" # bash reports nothing if it is killed
  create_file pid
  printf '%s\n' "$SERVER_PID" >"$(embedded_file pid)"
  embedded_describe # embedded_find would not recognize the process before it executes the server
}

embedded_is_running() { kill -0 "$SERVER_PID" 2>/dev/null; }

# embedded_is_listening: until the server listens, another server may use its ports and respond in its place.
embedded_is_listening() { grep -q 'REST API listening at' "$(embedded_file log)"; }

embedded_log() { tail -n "${1:-50}" "$(embedded_file log)"; }
embedded_logs() { exec tail -n +1 ${FOLLOW:+-f} "$(embedded_file log)"; }
embedded_log_command() { printf 'tail -f %s' "$(quoted "$(embedded_file log)")"; }

# list_arguments PROCESS: prints its command line, one argument per line, or as ps formats it without /proc.
list_arguments() {
  if [[ -r /proc/$1/cmdline ]]; then
    tr '\0' '\n' <"/proc/$1/cmdline"
  else
    ps -ww -o args= -p "$1"
  fi
}

# is_server PROCESS: process ids are reused, so this compares the command line.
is_server() {
  local started line
  started=$(sed '1,/^PYTHONPATH=/d; /^CUDA_VISIBLE_DEVICES=/d' "$(embedded_file command)" | tr '\n' ' ')
  line=$(list_arguments "$1" 2>/dev/null | tr '\n' ' ')
  [[ -n $started && $line == *"$started" ]]
}

# embedded_find: as docker_find, but FOUND is running or ''. FOUND_EXITED is the process of a server that was not
# stopped and does not run any more.
embedded_find() {
  local process=''
  FOUND='' FOUND_EXITED=''
  [[ -r $(embedded_file pid) && -r $(embedded_file command) ]] || return 0
  read -r process <"$(embedded_file pid)" || true
  matches "$process" '^[1-9][0-9]*$' || return 0
  if ! is_server "$process"; then
    FOUND_EXITED=$process
    return 0
  fi
  FOUND=running
  SERVER_PID=$process
  embedded_describe
}

# embedded_describe: sets FOUND_... from the saved command line.
embedded_describe() {
  local command=() line host
  FOUND_HEALTH='' FOUND_STATE=running
  while IFS= read -r line; do
    command+=("$line")
  done <"$(embedded_file command)"
  host=$(get_flag host "${command[@]}")
  FOUND_GRPC=$(host_port "$host" "$(get_flag port "${command[@]}")")
  FOUND_REST=$(host_port "$host" "$(get_flag rest_api_port "${command[@]}")")
  FOUND_CONFIG=$(get_flag model_config_file "${command[@]}")
  FOUND_MODEL=$(get_flag model_name "${command[@]}")
  FOUND_DETAILS="process $SERVER_PID, models $(get_flag models_dir "${command[@]}")"
}

# embedded_list: prints NAME|GRPC|REST|STATE for each server of this checkout that was not stopped.
embedded_list() {
  local file
  for file in "$(dirname -- "$(embedded_file pid)")"/*.pid; do
    [[ -e $file ]] || continue
    file=${file##*/}
    (
      CONTAINER_NAME=${file%.pid} embedded_find
      [[ -n $FOUND ]] || printf '%s|-|-|exited\n' "${file%.pid}"
      [[ -z $FOUND ]] || printf '%s|%s|%s|running, %s\n' "${file%.pid}" "$FOUND_GRPC" "$FOUND_REST" "$FOUND_DETAILS"
    )
  done
}

# embedded_list_servers: prints the names of the running servers of this checkout, one per line.
embedded_list_servers() {
  local file
  for file in "$RUN_DIR"/*.pid; do
    file=${file##*/}
    (
      CONTAINER_NAME=${file%.pid} embedded_find
      [[ -z $FOUND ]] || printf '%s\n' "${file%.pid}"
    )
  done
}

# embedded_list_models: as docker_list_models; the server logs the models of a config that it reloads.
embedded_list_models() {
  local names
  if [[ -n $FOUND_MODEL ]]; then
    printf '%s\n' "$FOUND_MODEL"
  else
    names=$(sed -n 's/.*the configuration has changed; models: //p' "$(embedded_file log)" | tail -n 1)
    if [[ -n $names && $names != none ]]; then
      tr -s ', ' '\n' <<<"$names"
    else
      embedded_active_config | list_config_models /dev/stdin
    fi
  fi
}

embedded_active_config() { cat "$(embedded_file config)" 2>/dev/null || cat "$FOUND_CONFIG"; }
embedded_read_config() { cat -- "$FOUND_CONFIG" 2>&1; }
embedded_is_draining() { grep -q 'shutting down: requests in flight' "$(embedded_file log)"; }
embedded_is_polling() { [[ $(cat "$(embedded_file command)") =~ $POLLING ]]; }

# embedded_reload_error: prints the server's own message, if its last attempt to reload the config failed.
embedded_reload_error() {
  sed -n 's/.*the configuration has changed;.*//p; s/.*the configuration is not reloaded: //p' "$(embedded_file log)" \
    | tail -n 1
}

# embedded_stop: after SIGTERM the server takes up to 10 s to finish the requests in flight.
embedded_stop() {
  local tenths=150
  kill -TERM "$SERVER_PID" 2>/dev/null || true
  while is_server "$SERVER_PID" && ((tenths-- > 0)); do
    sleep 0.1
  done
  if is_server "$SERVER_PID"; then
    log "the server (process $SERVER_PID) did not stop; killing it"
    kill -KILL "$SERVER_PID" 2>/dev/null || true
    # The kernel frees its memory first, which takes a while for large models, then its ports.
    tenths=100
    while [[ -n $(process_start_time "$SERVER_PID") ]] && ((tenths-- > 0)); do
      sleep 0.1
    done
  fi
  [[ $(cat "$(embedded_file pid)" 2>/dev/null) != "$SERVER_PID" ]] \
    || rm -f -- "$(embedded_file pid)" "$(embedded_file command)" "$(embedded_file config)"
}

# embedded_discard: stops the server that this script started. A signal may arrive before SERVER_PID is set.
embedded_discard() {
  [[ -n $SERVER_PID || ${!:-} == "$PREVIOUS_JOB" ]] || SERVER_PID=$!
  [[ -z $SERVER_PID ]] || embedded_stop
}
