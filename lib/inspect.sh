# shellcheck shell=bash
# What run_tf_serving.sh reports about servers: status, list and logs.

logs() {
  local name code=0
  if ! has_replicas; then
    print_logs
  elif [[ -z $FOLLOW ]]; then
    for name in $(list_replicas); do
      (with_replica "$name" print_logs) | prefix_lines "$name" || code=1
    done
    return "$code"
  else
    for name in $(list_replicas); do
      (with_replica "$name" print_logs) > >(prefix_lines "$name") &
    done
    # Background processes ignore Ctrl-C.
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    wait
  fi
}

# prefix_lines NAME: copies lines as soon as they arrive. Some versions of awk and sed wait for more.
prefix_lines() {
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    printf '%s | %s\n' "$1" "$line"
  done
}

print_logs() {
  find_server
  if [[ -z $FOUND && $ENGINE != docker && $(remembered ENGINE) == embedded && -r $(embedded_file log) ]]; then
    ENGINE=embedded # the log of a server that has stopped
  else
    require_server || return 1
  fi
  "${ENGINE}_logs"
}

list() {
  local line='%-24s %-9s %-22s %-22s %s\n' name grpc rest state
  # shellcheck disable=SC2059 # the format is ours
  printf "$line" NAME ENGINE GRPC REST STATE
  [[ $ENGINE == docker ]] || embedded_list | while IFS='|' read -r name grpc rest state; do
    # shellcheck disable=SC2059
    printf "$line" "$name" embedded "$grpc" "$rest" "$state$(describe_set "$name")"
  done
  [[ $ENGINE != embedded ]] || return 0
  if ! probe_docker; then
    [[ $ENGINE == docker || $NO_DOCKER != not-installed ]] || return 0
    fail "cannot list containers: $REASON; $DOCKER_FIX, or set ENGINE=embedded"
  fi
  docker_list | while IFS='|' read -r name grpc rest state; do
    # shellcheck disable=SC2059
    printf "$line" "$name" docker "$grpc" "$rest" "$state$(describe_set "$name")"
  done
}

# describe_set NAME: prints what the server NAME is a replica of, if it is one.
describe_set() {
  local CONTAINER_NAME=${1%-*}
  ! list_replicas | grep -qxF -- "$1" || printf ', replica of %s' "$CONTAINER_NAME"
}

# read_config_file: sets CONFIG_ERROR to why the server cannot use its config file, and CONFIG_ON_DISK to the text of
# the file.
read_config_file() {
  CONFIG_ERROR=''
  if ! CONFIG_ON_DISK=$("${ENGINE}_read_config"); then
    CONFIG_ERROR="$FOUND_CONFIG cannot be read (${CONFIG_ON_DISK##*$'\n'})"
  elif [[ -z $(list_config_models /dev/stdin <<<"$CONFIG_ON_DISK") ]]; then
    CONFIG_ERROR="$FOUND_CONFIG names no model"
  elif [[ -n $POLLS ]] && find_python google.protobuf; then
    CONFIG_ERROR=$(run_tfserving check --config=/dev/stdin <<<"$CONFIG_ON_DISK" 2>&1) && CONFIG_ERROR=''
    CONFIG_ERROR=${CONFIG_ERROR//\/dev\/stdin/$FOUND_CONFIG}
  fi
}

# compare_config: logs how the config file on disk differs from the config in force.
compare_config() {
  local error
  if [[ -n $CONFIG_ERROR ]]; then
    log "note: the server uses the config that it read before: $CONFIG_ERROR"
  elif [[ -n $POLLS ]]; then
    error=$("${ENGINE}_reload_error")
    [[ -z $error ]] || log "note: the server's last attempt to reload $FOUND_CONFIG failed: $error"
  elif [[ $CONFIG_ON_DISK != "$("${ENGINE}_active_config")" ]]; then
    log "note: $FOUND_CONFIG has changed, and the server does not reload it; restart it, or set" \
      MODEL_CONFIG_FILE_POLL_WAIT_SECONDS
  fi
}

status() {
  local grpc rest
  if ! has_replicas; then
    print_status
    return
  fi
  grpc=$(list_addresses GRPC) rest=$(list_addresses REST)
  printf '%s: %s servers, gRPC %s, REST %s\n' "$CONTAINER_NAME" "$(list_replicas | grep -c '')" \
    "${grpc:-none}" "${rest:-none}"
  for_each_replica print_status
}

print_status() {
  local host port model states found='' response=0 code=0 POLLS='' CONFIG_ERROR CONFIG_ON_DISK POLLED_CONFIG=''
  require_server || return 1
  if [[ $FOUND == stopped ]]; then
    log "$CONTAINER_NAME: $FOUND_DETAILS"
    log "$CONTAINER_NAME has stopped; its log: $("${ENGINE}_log_command")"
    return 1
  fi
  [[ $FOUND_STATE == running ]] || FOUND_HEALTH=$FOUND_STATE
  ! "${ENGINE}_is_draining" || FOUND_HEALTH=draining
  printf '%s: %s, gRPC %s, REST %s, %s%s\n' "$CONTAINER_NAME" "$ENGINE" "$FOUND_GRPC" "$FOUND_REST" "$FOUND_DETAILS" \
    "${FOUND_HEALTH:+, $FOUND_HEALTH}"
  host=${FOUND_REST%:*} port=${FOUND_REST##*:}
  host=${host#\[} host=$(client_address "${host%\]}")
  if [[ -n $FOUND_CONFIG ]]; then
    ! "${ENGINE}_is_polling" || POLLS=yes
    read_config_file
    [[ -z $POLLS || -n $CONFIG_ERROR ]] || POLLED_CONFIG=$CONFIG_ON_DISK
  fi
  for model in $("${ENGINE}_list_models"); do
    found=yes states=''
    # After a time limit, the next models would only make the user wait.
    [[ $response -eq 124 ]] || states=$(list_states "$host" "$port" "$model") || response=$?
    [[ $response -ne 3 ]] || states='- not found' response=0
    [[ -n $states ]] || states='- no response'
    printf '%s\n' "$states" | while read -r version state; do
      printf '%-24s %8s  %s\n' "$model" "$version" "$state"
    done
    [[ $states == *' AVAILABLE'* ]] || code=1
  done
  [[ $response -ne 124 ]] || log "$CONTAINER_NAME did not respond within $RESPONSE_TIMEOUT s"
  [[ -z $FOUND_CONFIG ]] || compare_config
  if [[ -z $found ]]; then
    log "the models of $CONTAINER_NAME are not known; its log: $("${ENGINE}_log_command")"
    return 1
  fi
  return "$code"
}
