# shellcheck shell=bash
# Starting a server and waiting until its models are AVAILABLE. A start that fails leaves nothing running.

# lock_name: from here to the end of this script, no other run of it changes what CONTAINER_NAME refers to.
lock_name() {
  create_run_dir
  trap release_lock EXIT
  acquire_lock
}

check_name_is_free() {
  local engine=embedded
  embedded_find
  if [[ -z $FOUND && $ENGINE == docker ]]; then
    engine=docker
    docker_find
  fi
  case $FOUND in
    running)
      reject "$CONTAINER_NAME is already running ($engine, gRPC $FOUND_GRPC, REST $FOUND_REST); stop it with" \
        "$(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) stop, or set another CONTAINER_NAME, GRPC_PORT and" \
        "REST_PORT"
      ;;
    foreign) reject "container $CONTAINER_NAME was not started by this script; set another CONTAINER_NAME" ;;
  esac
}

# check_names_are_free NAME...: these, and those of the replicas that were started as CONTAINER_NAME.
check_names_are_free() {
  local name
  for name in "$@" $(list_replicas); do
    CONTAINER_NAME=$name check_name_is_free
  done
}

check_ports_are_free() {
  local port
  for port in "$GRPC_PORT" "$REST_PORT"; do
    ! is_port_open "$(client_address "$BIND_ADDRESS")" "$port" || reject_used_port "$port" "another program"
  done
}

# abort_start EXIT_CODE: leaves nothing running. Another signal does not interrupt it.
abort_start() {
  trap - EXIT
  trap '' INT TERM HUP
  "${ENGINE}_discard"
  [[ -z $REPLACED ]] || restore_replaced
  release_lock
  exit "$1"
}

trap_abort() {
  trap 'abort_start 1' EXIT
  trap 'abort_start 130' INT
  trap 'abort_start 143' TERM HUP
}

wait_until_available() { has_available_models || abort_start 1; }

# has_available_models: waits until every model has an AVAILABLE version; prints the server's log and returns 1 if that
# fails.
has_available_models() {
  local deadline=$((SECONDS + START_TIMEOUT)) address pending logged='' names='' failure='' left
  local failed='' loads_checked=''
  local models=() RESPONSE_TIMEOUT=$RESPONSE_TIMEOUT
  address=$(client_address "$BIND_ADDRESS")
  while :; do
    "${ENGINE}_is_running" || failure='the server exited'
    pending='the server: not listening yet'
    if [[ -z $names ]] && "${ENGINE}_is_listening"; then
      names=$("${ENGINE}_list_models") || names=''
      # shellcheck disable=SC2206 # names contain no spaces
      models=($names)
    fi
    left=$((deadline - SECONDS))
    [[ $left -ge $RESPONSE_TIMEOUT ]] || RESPONSE_TIMEOUT=$((left > 0 ? left : 1))
    [[ -z $names ]] || pending=$(find_unavailable "$address" "$REST_PORT" "${models[@]}")
    [[ -n $pending || -n $failure ]] || return 0
    check_loads
    [[ $SECONDS -lt $deadline ]] \
      || failure=${failure:-"not AVAILABLE within START_TIMEOUT=$START_TIMEOUT s; $pending"}
    [[ -z $failure ]] || break
    [[ $pending == "$logged" ]] || log "waiting for $pending"
    logged=$pending
    sleep 0.2
  done
  log "the end of the server's log:"
  "${ENGINE}_log" >&2 || true
  [[ -z $failed ]] || failure="$failed; export the version again or remove it"
  log "error: $failure; its log is above"
  return 1
}

# check_loads: sets `failed` to a load that failed according to the server's log, and `failure` if that is still so
# in the next second: the server may have been about to load another version of the model.
check_loads() {
  local before=$failed
  [[ -n $failure || $SECONDS -ne $loads_checked ]] || return 0
  loads_checked=$SECONDS
  failed=$(run_with_timeout 5 "${ENGINE}_log" 10000 2>/dev/null | find_failed_load) || failed=''
  [[ -z $failed || $failed != "$before" ]] || failure=$failed
}

restart() { run; }

run() {
  resolve_engine
  check_models
  log_notes
  if [[ -n $(count_replicas) ]]; then
    start_replicas
  else
    start_server
  fi
}

# prepare_command: checks what needs the engine, and sets COMMAND.
prepare_command() {
  [[ -n $DRY_RUN ]] || "${ENGINE}_prepare"
  "${ENGINE}_command" ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
}

# start_server: starts one server.
start_server() {
  local address stop_first=''
  if [[ -z $DRY_RUN ]]; then
    lock_name
    [[ $ACTION != restart ]] || "${ENGINE}_find"
    if [[ $ACTION == restart && $FOUND == running ]]; then
      stop_first=yes
    else
      check_names_are_free "$CONTAINER_NAME"
    fi
  fi
  prepare_command
  if [[ -n $DRY_RUN ]]; then
    print_command "${COMMAND[@]}"
    return
  fi
  if [[ -n $stop_first ]]; then
    log "stopping $CONTAINER_NAME"
    "${ENGINE}_stop"
    SERVER_PID=''
  fi
  check_ports_are_free
  trap_abort
  "${ENGINE}_start"
  wait_until_available
  protect_switch
  rm -f -- "$(replicas_file)" # of servers that do not run any more
  remember_settings ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
  release_lock
  address=$(client_address "$BIND_ADDRESS")
  log "serving: gRPC $(host_port "$address" "$GRPC_PORT")," \
    "REST http://$(host_port "$address" "$REST_PORT")/v1/models/…"
  [[ -n $REPLICA ]] || log "log: $("${ENGINE}_log_command"); models:" \
    "$(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) status"
}
