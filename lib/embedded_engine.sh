# shellcheck shell=bash
# The embedded engine, without Docker: python -m tfserving.server in the background. It has the functions that
# docker_engine.sh lists. State is in RUN_DIR: CONTAINER_NAME.pid, .command (one argument per line) and .log.

SERVER_PID='' # the server's process id

embedded_file() { printf '%s/%s.%s' "$RUN_DIR" "$CONTAINER_NAME" "$1"; }

# embedded_add_file NAME FLAG: adds FLAG with the file of the variable NAME to FLAGS, if the user set it.
embedded_add_file() {
  [[ -z ${!1} ]] || FLAGS+=("--$2=$(absolute_file "${!1}")")
}

# embedded_command FLAG...: sets COMMAND.
embedded_command() {
  FLAGS=()
  require_python tensorflow google_crc32c grpc grpc_health grpc_reflection aiohttp orjson uvloop numpy google.protobuf
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
  COMMAND+=("--host=$BIND_ADDRESS" "--port=$GRPC_PORT" "--rest_api_port=$REST_PORT" "--models_dir=$MODELS_DIR")
  COMMAND+=("${LOAD_RETRY_FLAGS[@]}")
  COMMAND+=("${FLAGS[@]}" "$@")
}

embedded_prepare() {
  mkdir -p -- "$RUN_DIR" || fail "RUN_DIR=$(quoted "$RUN_DIR"), for the log and the process id, cannot be created;" \
    "set RUN_DIR to another directory"
}

embedded_start() {
  printf '%s\n' "${COMMAND[@]}" >"$(embedded_file command)"
  set -m # a process group for the server, so that Ctrl-C in this terminal does not stop it
  nohup "${COMMAND[@]}" </dev/null >"$(embedded_file log)" 2>&1 &
  SERVER_PID=$!
  set +m
  printf '%s\n' "$SERVER_PID" >"$(embedded_file pid)"
  embedded_describe # embedded_find would not recognize the process before it executes the server
}

embedded_is_running() { kill -0 "$SERVER_PID" 2>/dev/null; }

embedded_log() { tail -n "${1:-50}" "$(embedded_file log)"; }
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

# embedded_find: as docker_find, but FOUND is running or ''.
embedded_find() {
  local process=''
  FOUND=''
  [[ -r $(embedded_file pid) && -r $(embedded_file command) ]] || return 0
  read -r process <"$(embedded_file pid)" || true
  matches "$process" '^[1-9][0-9]*$' && is_server "$process" || return 0
  FOUND=running
  SERVER_PID=$process
  embedded_describe
}

# embedded_describe: sets FOUND_... from the saved command line.
embedded_describe() {
  local command=() line host
  FOUND_HEALTH=''
  while IFS= read -r line; do
    command+=("$line")
  done <"$(embedded_file command)"
  host=$(get_flag host "${command[@]}")
  FOUND_GRPC=$(host_port "$host" "$(get_flag port "${command[@]}")")
  FOUND_REST=$(host_port "$host" "$(get_flag rest_api_port "${command[@]}")")
  FOUND_CONFIG=$(get_flag model_config_file "${command[@]}")
  FOUND_MODEL=$(get_flag model_name "${command[@]}")
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

embedded_list_models() {
  if [[ -n $FOUND_MODEL ]]; then
    printf '%s\n' "$FOUND_MODEL"
  else
    list_config_models "$FOUND_CONFIG"
  fi
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
  fi
  rm -f -- "$(embedded_file pid)" "$(embedded_file command)"
}

# embedded_discard: unlike a container's name, the process id cannot belong to another program.
embedded_discard() { embedded_stop; }
