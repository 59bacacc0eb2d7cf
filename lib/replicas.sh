# shellcheck shell=bash
# Several equal servers that this script treats as one: REPLICAS of them, or REPLICAS_PER_GPU for each GPU. Each is a
# server with a name, ports and settings, CONTAINER_NAME-1 and so on; what is done to all of them is a loop over these.
# The names are in CONTAINER_NAME.replicas in RUN_DIR, one per line.

# The replica whose settings are in force in this process; empty: none.
REPLICA=''
# Ports alternate between gRPC and REST with the default ports, so a replica's ports are those of the one before plus 2.
PORT_STEP=2

# count_replicas: prints how many servers the settings ask for; nothing for a single server.
count_replicas() {
  local gpus
  if [[ -n $REPLICAS_PER_GPU ]]; then
    IFS=, read -r -a gpus <<<"$GPU"
    printf '%d' "$((REPLICAS_PER_GPU * ${#gpus[@]}))"
  else
    printf '%s' "$REPLICAS"
  fi
}

check_replicas() {
  local name count gpu seen=,
  for name in REPLICAS REPLICAS_PER_GPU; do
    check_pattern "$name" '^([1-9][0-9]{0,2})?$' 'number of servers' 1-999
  done
  [[ -z $REPLICAS || -z $REPLICAS_PER_GPU ]] \
    || reject "REPLICAS and REPLICAS_PER_GPU are mutually exclusive; set only one of them"
  [[ -z $REPLICAS || -z $GPU ]] \
    || reject "REPLICAS=$REPLICAS and GPU=$GPU are mutually exclusive; set REPLICAS_PER_GPU to start servers for each" \
      "GPU"
  [[ -z $REPLICAS_PER_GPU || -n $GPU ]] \
    || reject "REPLICAS_PER_GPU=$REPLICAS_PER_GPU needs a list of GPUs; set GPU, such as GPU=0,1, or set REPLICAS" \
      "instead"
  count=$(count_replicas)
  [[ -n $count ]] || return 0
  if [[ -n $REPLICAS_PER_GPU ]]; then
    for gpu in ${GPU//,/ }; do
      [[ $seen != *",$gpu,"* ]] \
        || reject "GPU=$GPU names $gpu twice; set REPLICAS_PER_GPU to start several servers on a GPU"
      seen+=$gpu,
    done
    check_memory_fraction
  fi
  check_port_ranges "$count"
}

check_memory_fraction() {
  [[ -z $GPU_MEMORY_FRACTION ]] \
    || awk -v "used=$GPU_MEMORY_FRACTION" -v "servers=$REPLICAS_PER_GPU" 'BEGIN { exit (used * servers > 1.000001) }' \
    || reject "GPU_MEMORY_FRACTION=$GPU_MEMORY_FRACTION is too large for REPLICAS_PER_GPU=$REPLICAS_PER_GPU: all" \
      "servers of a GPU share its memory; set it to at most $(share_memory 1)"
}

# shares_memory: whether each container gets its share of the memory of its GPU. The embedded server takes memory as it
# needs it.
shares_memory() { [[ $ENGINE == docker && $REPLICAS_PER_GPU -gt 1 && -z $GPU_MEMORY_FRACTION ]]; }

# share_memory SHARE: prints the fraction of a GPU's memory for each of its servers, if they take SHARE of it together.
share_memory() {
  awk -v "share=$1" -v "servers=$REPLICAS_PER_GPU" 'BEGIN { printf "%.3f", int(share * 1000 / servers) / 1000 }'
}

check_port_ranges() { # COUNT
  local name last=$((PORT_STEP * ($1 - 1))) distance=$((GRPC_PORT - REST_PORT))
  for name in GRPC_PORT REST_PORT; do
    ((${!name} + last <= 65535)) || reject "$name=${!name} leaves too few ports for $1 servers, which use every" \
      "second port up to $((${!name} + last)); set it to at most $((65535 - last))"
  done
  distance=${distance#-}
  ((distance % PORT_STEP != 0 || distance > last)) \
    || reject "GRPC_PORT=$GRPC_PORT and REST_PORT=$REST_PORT overlap: $1 servers use every second port from each; set" \
      "REST_PORT=$((GRPC_PORT + 1))"
}

replicas_file() { embedded_file replicas; }

# list_replicas: prints the names of the replicas that were started as CONTAINER_NAME, one per line; nothing for a
# single server.
list_replicas() { cat "$(replicas_file)" 2>/dev/null || true; }

has_replicas() { [[ -s $(replicas_file) ]]; }

# with_replica NAME COMMAND...: runs a function with the settings of one replica: its name, its ports and its GPU. For a
# subshell.
with_replica() {
  local gpus index=$((${1##*-} - 1))
  REPLICA=$1 CONTAINER_NAME=$1 LOG_PREFIX="$1: " LOCK_FILE=''
  GRPC_PORT=$((GRPC_PORT + PORT_STEP * index)) REST_PORT=$((REST_PORT + PORT_STEP * index))
  SET_BY_USER+='GRPC_PORT REST_PORT '
  if [[ -n $REPLICAS_PER_GPU ]]; then
    IFS=, read -r -a gpus <<<"$GPU"
    GPU=${gpus[index / REPLICAS_PER_GPU]:-}
    if shares_memory; then
      GPU_MEMORY_FRACTION=$(share_memory 0.9)
      SET_BY_USER+='GPU_MEMORY_FRACTION '
    fi
  fi
  # A replica remembers the settings of a single server.
  REPLICAS='' REPLICAS_PER_GPU=''
  SET_BY_USER=${SET_BY_USER// REPLICAS / } SET_BY_USER=${SET_BY_USER// REPLICAS_PER_GPU / }
  shift
  "$@"
}

# run_replica NAME COMMAND...: with_replica in a subshell; sets CODE to its exit code. In a condition, set -e would have
# no effect in it.
run_replica() {
  set +e
  (
    set -e
    with_replica "$@"
  )
  CODE=$?
  set -e
}

# for_each_replica COMMAND...: runs a function for one replica after another; returns the highest exit code.
for_each_replica() {
  local name highest=0
  for name in $(list_replicas); do
    run_replica "$name" "$@"
    [[ $CODE -le $highest ]] || highest=$CODE
  done
  return "$highest"
}

# for_all_replicas COMMAND...: the same for all replicas at the same time.
for_all_replicas() {
  local name code highest=0 process processes=()
  for name in $(list_replicas); do
    (with_replica "$name" "$@") &
    processes+=("$!")
  done
  for process in ${processes[@]+"${processes[@]}"}; do
    code=0
    wait "$process" || code=$?
    [[ $code -le $highest ]] || highest=$code
  done
  return "$highest"
}

# start_replicas: starts all replicas at the same time, and returns when all their models are AVAILABLE. If one fails,
# all are stopped.
start_replicas() {
  local number
  NAMES=()
  for ((number = 1; number <= $(count_replicas); number++)); do
    NAMES+=("$CONTAINER_NAME-$number")
  done
  ! shares_memory \
    || log "note: each server takes $(share_memory 0.9) of the memory of its GPU; set GPU_MEMORY_FRACTION to change it"
  if [[ -n $DRY_RUN ]]; then
    for number in "${NAMES[@]}"; do
      (with_replica "$number" start_server)
    done
    return
  fi
  lock_name
  if [[ $ACTION == restart ]]; then
    OWN_NAMES="$CONTAINER_NAME $(list_replicas | tr '\n' ' ')"
  else
    check_names_are_free "$CONTAINER_NAME" "${NAMES[@]}"
  fi
  (with_replica "${NAMES[0]}" prepare_command)
  check_gpus_exist
  [[ $ACTION != restart ]] || stop_running
  for number in "${NAMES[@]}"; do
    (with_replica "$number" check_ports_are_free)
  done
  ACTION=run
  create_file replicas
  printf '%s\n' "${NAMES[@]}" >"$(replicas_file)"
  run_starts
  remember_settings ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
  trap - EXIT INT TERM HUP
  release_lock
  log "logs: $(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) logs; models:" \
    "$(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) status"
  list_addresses GRPC
  printf '\n'
}

# run_starts: starts the servers NAMES; PROCESSES and CODES are those of their starts. Exits if one fails.
run_starts() {
  local name
  PROCESSES=() CODES=()
  trap 'abort_starts 1' EXIT
  trap 'abort_starts 130' INT
  trap 'abort_starts 143' TERM HUP
  for name in "${NAMES[@]}"; do
    (with_replica "$name" start_server) &
    PROCESSES+=("$!") CODES+=('')
  done
  while [[ " ${CODES[*]} " == *'  '* ]]; do
    collect_codes
    sleep 0.1
  done
}

collect_codes() {
  local i
  for i in "${!PROCESSES[@]}"; do
    if [[ -z ${CODES[i]} ]] && ! kill -0 "${PROCESSES[i]}" 2>/dev/null; then
      wait_for_start "$i"
      [[ ${CODES[i]} -eq 0 ]] || abort_starts "${CODES[i]}"
    fi
  done
}

wait_for_start() { # INDEX
  CODES[$1]=0
  wait "${PROCESSES[$1]}" || CODES[$1]=$?
}

# abort_starts EXIT_CODE: ends the starts that are not finished, and stops the servers of the others.
abort_starts() {
  local i running=0
  trap - EXIT
  trap '' INT TERM HUP
  for i in "${!PROCESSES[@]}"; do
    [[ -n ${CODES[i]} ]] || kill -TERM "${PROCESSES[i]}" 2>/dev/null || true
  done
  for i in "${!PROCESSES[@]}"; do
    [[ -n ${CODES[i]} ]] || wait_for_start "$i"
    [[ ${CODES[i]} -ne 0 ]] || (with_replica "${NAMES[i]}" stop_found) || running=$((running + 1))
  done
  if [[ $running -gt 0 ]]; then
    log "error: not all servers started, and $running of them cannot be stopped;" \
      "run $(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) stop"
  else
    log "error: not all servers started; the others were stopped"
    rm -f -- "$(replicas_file)"
  fi
  release_lock
  exit "$1"
}

# stop_running: stops the servers that run as CONTAINER_NAME, for a restart.
stop_running() {
  log "stopping $CONTAINER_NAME"
  if has_replicas; then
    for_all_replicas stop_found
  else
    stop_found
  fi
}

stop_found() {
  "${ENGINE}_find"
  [[ $FOUND != running ]] || "${ENGINE}_stop"
}

# list_addresses GRPC|REST: prints the addresses of the replicas that run, separated by commas.
list_addresses() {
  local name list=''
  for name in $(list_replicas); do
    name=$(with_replica "$name" print_address "$1")
    list+=${name:+${list:+,}$name}
  done
  printf '%s' "$list"
}

print_address() { # GRPC|REST
  local address=FOUND_$1 host
  find_server
  [[ $FOUND == running ]] || return 0
  host=${!address%:*} host=${host#\[}
  host_port "$(client_address "${host%\]}")" "${!address##*:}"
}
