# shellcheck shell=bash
# The engine without Docker: python -m tfserving.server in the background. It has the functions that lib/docker.sh
# names. What runs is remembered in .run/: CONTAINER_NAME.pid, .command (one argument a line) and .log.

SERVER='' # the server's process id

embedded_state() { printf '%s/.run/%s.%s' "$ROOT" "$CONTAINER_NAME" "$1"; }

# embedded_option VARIABLE FLAG: adds FLAG for the file of VARIABLE, when the user chose one.
embedded_option() {
  [[ -z ${!1} ]] || FLAGS+=("--$2=$(absolute_file "${!1}")")
}

# embedded_command FLAG...: sets COMMAND.
embedded_command() {
  FLAGS=()
  find_python tensorflow google_crc32c grpc grpc_health grpc_reflection aiohttp orjson uvloop numpy google.protobuf
  COMMAND=(env "PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}")
  [[ -z $GPU ]] || COMMAND+=("CUDA_VISIBLE_DEVICES=$GPU")
  COMMAND+=("$PYTHON" -m tfserving.server)
  case $MODE in
    single) FLAGS+=("--model_name=$MODEL_NAME" "--model_base_path=/models/$MODEL_NAME") ;;
    # A label may be there before its version is loaded, as in the image.
    multi) FLAGS+=("--model_config_file=$(absolute_file "$MODELS_CONFIG")" --allow_version_labels_for_unavailable_models=true) ;;
  esac
  add_flags embedded_option
  COMMAND+=("--host=$BIND_ADDRESS" "--port=$GRPC_PORT" "--rest_api_port=$REST_PORT" "--models_dir=$MODELS_DIR")
  COMMAND+=("${FLAGS[@]}" "$@")
}

embedded_prepare() {
  mkdir -p "$ROOT/.run" || fail "$(quoted "$ROOT/.run") cannot be made; the log and the process id go there"
}

embedded_start() {
  printf '%s\n' "${COMMAND[@]}" >"$(embedded_state command)"
  set -m # a process group of its own: a Ctrl-C in this terminal is not meant for it
  nohup "${COMMAND[@]}" </dev/null >"$(embedded_state log)" 2>&1 &
  SERVER=$!
  set +m
  printf '%s\n' "$SERVER" >"$(embedded_state pid)"
  embedded_describe # without asking the process, which may not be the server yet
}

# Only for the server that this door started: as its child it is gone for `kill -0` as soon as it ended.
embedded_runs() { kill -0 "$SERVER" 2>/dev/null; }

embedded_log() { tail -n 50 "$(embedded_state log)"; }
embedded_log_command() { printf 'tail -f %s' "$(quoted "$(embedded_state log)")"; }

# arguments_of PROCESS: its command line, one argument a line, or as ps shows it where there is no /proc.
arguments_of() {
  if [[ -r /proc/$1/cmdline ]]; then
    tr '\0' '\n' <"/proc/$1/cmdline"
  else
    ps -ww -o args= -p "$1"
  fi
}

# is_server PROCESS: whether it is the one that was started. Process ids come round.
is_server() {
  local started line
  started=$(sed '1,/^PYTHONPATH=/d; /^CUDA_VISIBLE_DEVICES=/d' "$(embedded_state command)" | tr '\n' ' ')
  line=$(arguments_of "$1" 2>/dev/null | tr '\n' ' ')
  [[ -n $started && $line == *"$started" ]]
}

# embedded_find: as docker_find; a server that has ended is as good as none.
embedded_find() {
  local process=''
  FOUND=''
  [[ -r $(embedded_state pid) && -r $(embedded_state command) ]] || return 0
  read -r process <"$(embedded_state pid)" || true
  matches "$process" '^[1-9][0-9]*$' && is_server "$process" || return 0
  FOUND=running
  SERVER=$process
  embedded_describe
}

# embedded_describe: sets FOUND_… from the command that was started.
embedded_describe() {
  local command=() line host
  FOUND_HEALTH=''
  while IFS= read -r line; do
    command+=("$line")
  done <"$(embedded_state command)"
  host=$(in_image flag_value host "${command[@]}")
  FOUND_GRPC=$(host_port "$host" "$(in_image flag_value port "${command[@]}")")
  FOUND_REST=$(host_port "$host" "$(in_image flag_value rest_api_port "${command[@]}")")
  FOUND_CONFIG=$(in_image flag_value model_config_file "${command[@]}")
  FOUND_MODEL=$(in_image flag_value model_name "${command[@]}")
}

# embedded_others: the names of the servers that were started here, one a line.
embedded_others() {
  local file
  for file in "$ROOT"/.run/*.pid; do
    file=${file##*/}
    (
      CONTAINER_NAME=${file%.pid} embedded_find
      [[ -z $FOUND ]] || printf '%s\n' "${file%.pid}"
    )
  done
}

embedded_models() {
  if [[ -n $FOUND_MODEL ]]; then
    printf '%s\n' "$FOUND_MODEL"
  else
    in_image model_names "$FOUND_CONFIG" | tr '\0' '\n'
  fi
}

# embedded_stop: SIGTERM lets the calls in flight end, for which the server takes 10 s at most.
embedded_stop() {
  local tenths=150
  kill -TERM "$SERVER" 2>/dev/null || true
  while is_server "$SERVER" && ((tenths-- > 0)); do
    sleep 0.1
  done
  if is_server "$SERVER"; then
    note "the server (process $SERVER) did not end; killing it"
    kill -KILL "$SERVER" 2>/dev/null || true
  fi
  embedded_remove
}

embedded_remove() { rm -f -- "$(embedded_state pid)" "$(embedded_state command)"; }

# embedded_discard: what was started and did not come up; the log stays.
embedded_discard() { embedded_stop; }
