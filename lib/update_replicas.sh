# shellcheck shell=bash
# Updating replicas and rolling them back: one container after another is replaced on its ports and its GPU, while the
# others serve. The old containers, NAME-replaced, are kept until all are replaced: if one fails, they serve again. Then
# they are NAME-previous.

REPLACED=''    # the container that serves again if its replacement fails
INTERRUPTED='' # the exit code for a signal that arrived while replicas were replaced

# update_replicas: starts containers with the remembered settings and IMAGE_NAME.
update_replicas() {
  local count
  count=$(list_replicas | grep -c '')
  [[ $(count_replicas) == "$count" ]] \
    || reject "update keeps the number of servers, which is $count; use restart to change it"
  lock_name
  for_each_replica require_running
  check_models
  OWN_NAMES="$(list_replicas | tr '\n' ' ')"
  (with_replica "$CONTAINER_NAME-1" prepare_command)
  check_gpus_exist
  replace_all update_replica undo_update
  for_each_replica finish_update
  swap_settings "$CONTAINER_NAME" "$CONTAINER_NAME-previous"
  remember_settings ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
  log "roll back with $(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) rollback"
  list_addresses GRPC
  printf '\n'
}

# roll_back_replicas: starts the containers from before the last update. Another rollback undoes it.
roll_back_replicas() {
  lock_name
  for_each_replica require_running
  for_each_replica require_previous
  replace_all roll_back_replica undo_rollback
  for_each_replica finish_rollback
  swap_settings "$CONTAINER_NAME" "$CONTAINER_NAME-previous"
  list_addresses GRPC
  printf '\n'
}

# replace_all REPLACE UNDO: runs REPLACE for one replica after another. If one fails or a signal arrives, runs UNDO for
# those that were replaced, and exits.
replace_all() {
  local name code=0 kept='' replaced=()
  for_each_replica remove_replaced
  trap 'INTERRUPTED=130' INT
  trap 'INTERRUPTED=143' TERM HUP
  for name in $(list_replicas); do
    run_replica "$name" "$1"
    [[ $CODE -ne 0 ]] || replaced+=("$name")
    code=${INTERRUPTED:-$CODE}
    [[ $code -eq 0 ]] || break
  done
  trap '' INT TERM HUP
  [[ $code -ne 0 ]] || return 0
  for name in ${replaced[@]+"${replaced[@]}"}; do
    run_replica "$name" "$2"
    [[ $CODE -eq 0 ]] || kept+=" $name"
  done
  if [[ -z $kept ]]; then
    log "error: not all servers were replaced; they have their old containers again"
  else
    log "error: not all servers were replaced, and the old containers of$kept do not serve; run" \
      "$(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) status"
  fi
  exit "$code"
}

require_running() {
  docker_find
  [[ $FOUND == running ]] || fail "$CONTAINER_NAME is not running; start it with" \
    "$(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR) restart"
}

require_previous() {
  local name=$CONTAINER_NAME
  CONTAINER_NAME+=-previous
  docker_find
  [[ $FOUND == stopped ]] || fail "$name has no stopped container $CONTAINER_NAME to roll back to"
}

remove_replaced() {
  CONTAINER_NAME+=-replaced
  remove_interrupted_update
}

update_replica() {
  lock_name
  prepare_command
  set_aside
  docker_start
  finish_start
}

roll_back_replica() {
  lock_name
  set_aside
  find_container "$CONTAINER_NAME-previous"
  CONTAINER_ID=$FOUND_ID KEEP_CONTAINER=yes
  rename_container "$CONTAINER_ID" "$CONTAINER_NAME"
  docker_within 60 start "$CONTAINER_ID" >/dev/null || fail "docker start failed; its output is above"
  docker_find
  use_found_address
  finish_start
}

finish_start() {
  wait_until_available
  protect_switch
  log_switch
}

# find_container NAME: docker_find for another name.
find_container() {
  local CONTAINER_NAME=$1
  docker_find
}

# set_aside: renames the container to NAME-replaced and stops it. From here to protect_switch, it serves again if the
# script exits.
set_aside() {
  docker_find
  REPLACED=$FOUND_ID
  trap_abort
  log "stopping the old container"
  rename_container "$REPLACED" "$CONTAINER_NAME-replaced"
  stop_found_container
  check_ports_are_free
}

stop_found_container() {
  docker_within "$((FOUND_STOP_TIMEOUT + 15))" stop "$FOUND_ID" >/dev/null \
    || fail "docker stop failed or did not return within $((FOUND_STOP_TIMEOUT + 15)) s; any output is above"
}

# restore_replaced: starts the old container again, after the new one has stopped.
restore_replaced() {
  log "starting the old container again"
  docker_find
  if [[ -n $FOUND && $FOUND_ID != "$REPLACED" ]]; then
    rename_container "$FOUND_ID" "$CONTAINER_NAME-previous"
  fi
  [[ $FOUND_ID == "$REPLACED" ]] || rename_container "$REPLACED" "$CONTAINER_NAME"
  docker_within 60 start "$REPLACED" >/dev/null || fail "docker start failed; its output is above"
  CONTAINER_ID=$REPLACED
  docker_find
  use_found_address
  has_available_models || fail "the old container does not serve; its log is above"
}

# undo_update, undo_rollback: return from a container that serves to the old one.
undo_update() {
  lock_name
  find_container "$CONTAINER_NAME-replaced"
  REPLACED=$FOUND_ID
  docker_find
  docker_stop
  restore_replaced
}

undo_rollback() {
  lock_name
  find_container "$CONTAINER_NAME-replaced"
  REPLACED=$FOUND_ID
  docker_find
  stop_found_container
  restore_replaced
}

finish_update() {
  find_container "$CONTAINER_NAME-previous"
  [[ -z $FOUND ]] || docker_within 30 rm --force "$FOUND_ID" >/dev/null || fail "cannot remove $CONTAINER_NAME-previous"
  keep_replaced
  remember_settings ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}
}

finish_rollback() {
  keep_replaced
  query_docker update --restart "$RESTART_POLICY" "$CONTAINER_NAME" >/dev/null || log "cannot restore RESTART_POLICY"
}

# keep_replaced: the old container is the one that rollback returns to; a restart of the daemon must not start it.
keep_replaced() {
  rename_container "$CONTAINER_NAME-replaced" "$CONTAINER_NAME-previous"
  query_docker update --restart no "$CONTAINER_NAME-previous" >/dev/null \
    || log "cannot set the restart policy of $CONTAINER_NAME-previous"
  swap_settings "$CONTAINER_NAME" "$CONTAINER_NAME-previous"
}
