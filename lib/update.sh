# shellcheck shell=bash
# Updating a container without downtime, and rolling back, on one machine. Both containers serve during the switch, on
# different ports. NAME-previous, stopped, is what rollback returns to. update_replicas.sh does the same for replicas.

update() {
  require_docker_engine
  if has_replicas; then
    update_replicas
  else
    update_server
  fi
}

rollback() {
  require_docker_engine
  CONTAINER_NAME=${CONTAINER_NAME%-previous}
  if has_replicas; then
    roll_back_replicas
  else
    roll_back_server
  fi
}

# update_server: starts a container with the remembered settings and IMAGE_NAME on free ports, then stops the old one.
update_server() {
  local name=$CONTAINER_NAME old new
  lock_name
  docker_find
  [[ $FOUND == running ]] \
    || fail "$name is not running; start it with $(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) restart"
  old=$FOUND_ID
  check_models
  choose_free_ports
  CONTAINER_NAME=$name-next
  remove_interrupted_update
  docker_prepare
  docker_command ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
  check_ports_are_free
  trap_abort
  docker_start
  wait_until_available
  require_container "$name" "$old"
  protect_switch
  new=$CONTAINER_ID
  CONTAINER_NAME=$name-previous
  docker_find
  [[ -z $FOUND ]] || docker_within 30 rm --force "$FOUND_ID" >/dev/null || fail "cannot remove container $CONTAINER_NAME"
  rename_container "$old" "$name-previous"
  rename_container "$new" "$name"
  swap_settings "$name" "$name-previous"
  CONTAINER_NAME=$name
  remember_settings ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
  log_switch
  stop_previous "$name"
  log "roll back with $(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) rollback"
}

# roll_back_server: starts NAME-previous again, then stops NAME. Another rollback undoes it.
roll_back_server() {
  local name=$CONTAINER_NAME current previous
  lock_name
  docker_find
  current=''
  case $FOUND in running | stopped) current=$FOUND_ID ;; esac
  CONTAINER_NAME=$name-previous
  docker_find
  [[ $FOUND == stopped ]] || fail "$name has no stopped container $CONTAINER_NAME to roll back to"
  previous=$FOUND_ID
  use_found_address
  CONTAINER_ID=$previous KEEP_CONTAINER=yes
  check_ports_are_free
  trap_abort
  docker_within 60 start "$previous" >/dev/null || fail "docker start failed; its output is above"
  wait_until_available
  [[ -z $current ]] || require_container "$name" "$current"
  protect_switch
  [[ -z $current ]] || rename_container "$current" "$name-next"
  rename_container "$previous" "$name"
  [[ -z $current ]] || rename_container "$current" "$name-previous"
  query_docker update --restart "$RESTART_POLICY" "$previous" >/dev/null || log "cannot restore RESTART_POLICY"
  swap_settings "$name" "$name-previous"
  CONTAINER_NAME=$name
  log_switch
  [[ -z $current ]] || stop_previous "$name"
}

# use_found_address: the addresses of a container never change.
use_found_address() {
  GRPC_PORT=${FOUND_GRPC##*:} REST_PORT=${FOUND_REST##*:}
  BIND_ADDRESS=${FOUND_REST%:*} BIND_ADDRESS=${BIND_ADDRESS#\[} BIND_ADDRESS=${BIND_ADDRESS%\]}
}

require_docker_engine() {
  [[ $ENGINE != embedded ]] || reject "$ACTION needs docker; the embedded server loads a version as soon as it is" \
    "exported to MODELS_DIR"
  ENGINE=docker
  probe_docker || fail "$ACTION needs docker, but $REASON; $DOCKER_FIX"
}

# choose_free_ports: prefers the ports of NAME-previous, so that updates alternate between two pairs. Keeps ports that the
# user set to others than those of the running container.
choose_free_ports() {
  local name port candidates offset
  for name in GRPC_PORT REST_PORT; do
    case ${!name} in "${FOUND_GRPC##*:}" | "${FOUND_REST##*:}") ;; *) continue ;; esac
    candidates=$(find_previous_port "$name")
    for offset in 10 20 30 40 50 60 70 80 90; do
      candidates+=" $((${!name} + offset))"
    done
    for port in $candidates; do
      [[ $port -gt 65535 || $port == "$GRPC_PORT" ]] || is_port_open "$(client_address "$BIND_ADDRESS")" "$port" || break
      port=''
    done
    [[ -n $port ]] || fail "the ports that update tried for $name are in use: $candidates; set $name"
    printf -v "$name" '%s' "$port"
    SET_BY_USER+="$name "
  done
}

find_previous_port() { # GRPC_PORT|REST_PORT
  local CONTAINER_NAME=$CONTAINER_NAME-previous
  docker_find
  case $1 in
    GRPC_PORT) printf '%s' "${FOUND_GRPC##*:}" ;;
    REST_PORT) printf '%s' "${FOUND_REST##*:}" ;;
  esac
}

remove_interrupted_update() {
  docker_find
  case $FOUND in
    running | stopped)
      log "removing container $CONTAINER_NAME, which an interrupted update left"
      docker_within 30 rm --force "$FOUND_ID" >/dev/null || fail "cannot remove container $CONTAINER_NAME"
      ;;
    foreign) reject "container $CONTAINER_NAME was not started by this script; remove or rename it" ;;
  esac
}

rename_container() { query_docker rename "$1" "$2" || fail "cannot rename container $1 to $2; docker's output is above"; }

# require_container NAME ID: fails if a concurrent stop has removed the container.
require_container() {
  local CONTAINER_NAME=$1
  docker_find
  [[ $FOUND_ID == "$2" ]] || fail "$1 was stopped meanwhile; its replacement is stopped as well"
}

# protect_switch: from here on, a signal does not interrupt the script, and nothing is discarded when it exits.
protect_switch() {
  trap release_lock EXIT
  trap '' INT TERM HUP
}

swap_settings() { # NAME NAME
  local first second
  first=$(CONTAINER_NAME=$1 remembered_file) second=$(CONTAINER_NAME=$2 remembered_file)
  [[ ! -e $second ]] || mv -f -- "$second" "$second.new"
  [[ ! -e $first ]] || mv -f -- "$first" "$second"
  [[ ! -e $second.new ]] || mv -f -- "$second.new" "$first"
}

# remove_previous: removes the stopped container that rollback would return to.
remove_previous() {
  local CONTAINER_NAME=$CONTAINER_NAME-previous
  docker_find
  [[ $FOUND != stopped ]] || query_docker rm "$FOUND_ID" >/dev/null 2>&1 || true
  rm -f -- "$(remembered_file)"
}

log_switch() {
  local address
  address=$(client_address "$BIND_ADDRESS")
  log "serving: gRPC $(host_port "$address" "$GRPC_PORT")," \
    "REST http://$(host_port "$address" "$REST_PORT")/v1/models/…"
}

# stop_previous NAME: drains and stops NAME-previous, which a restart of the daemon must not start again.
stop_previous() {
  local CONTAINER_NAME=$1-previous
  docker_find
  log "stopping the previous container, gRPC $FOUND_GRPC, REST $FOUND_REST"
  query_docker update --restart no "$FOUND_ID" >/dev/null || log "cannot set the restart policy of $CONTAINER_NAME"
  docker_within "$((FOUND_STOP_TIMEOUT + 15))" stop "$FOUND_ID" >/dev/null || fail "cannot stop $CONTAINER_NAME"
}
