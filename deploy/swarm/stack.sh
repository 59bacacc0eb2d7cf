#!/usr/bin/env bash
#
# Runs model servers in a Docker Swarm: groups of replicas of an image from build.sh or build_ensemble.sh.
#
# Usage: bash deploy/swarm/stack.sh up [--env-file FILE] [--dry-run] [-- SERVER_FLAG...]
#        bash deploy/swarm/stack.sh update [stable|canary] [--env-file FILE] [--dry-run]
#        bash deploy/swarm/stack.sh rollback [stable|canary] [--env-file FILE] [--dry-run]
#        bash deploy/swarm/stack.sh logs [stable|canary|gateway|prometheus] [--follow] [--env-file FILE]
#        bash deploy/swarm/stack.sh status|down [--env-file FILE] [--dry-run]
#
#   up          create the stack, or change it to the present variables; images and numbers of replicas that are not
#               set stay as they are
#   update      replace the servers of a group by servers of IMAGE_NAME (canary: CANARY_IMAGE), one after the other;
#               if one of them fails, Swarm rolls back
#   rollback    return to what the group ran before the last update
#   status      print the servers of each group; exit with 0 if all replicas run
#   down        remove the stack
#   logs        print the logs of a group; --follow waits for more
#   --env-file  read variables from FILE, a line NAME=VALUE each; those of the environment take precedence
#   --dry-run   print the docker command, but do not run it
#   -- ...      flags for tensorflow_model_server, --NAME=VALUE
#
# Without a group, update, rollback and logs use stable. up, update and rollback return when all replicas are healthy;
# they fail if that takes longer than START_TIMEOUT, or if an update was rolled back. Run this script on a manager node.
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
DIRECTORY=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)
ROOT=$(CDPATH='' cd -- "$DIRECTORY/../.." && pwd)

# Write a value after := or set the variable in the environment, which takes precedence.
: "${STACK:=}"                            # the name of the stack; empty: tfserving
: "${IMAGE_NAME:=}"                       # the image of the servers; empty: as running, or tfserving-MODEL_NAME
: "${CANARY_IMAGE:=}"                     # the image of the group canary; empty: as running, or IMAGE_NAME
: "${MODEL_NAME:=}"                       # the model that gateways check, and the default of IMAGE_NAME
: "${REPLICAS:=}"                         # the number of servers of the group stable; empty: as running, or 2
: "${CANARY_REPLICAS:=}"                  # the number of servers of the group canary; empty: as running, or 0
: "${MODELS_DIR:=}"                       # serve the models of this directory of each node; empty: those of the image
: "${GPUS:=}"                             # 1: a GPU for each server; empty: none
: "${XLA:=}"                              # true: compile functions with jit_compile; auto: all; empty: nothing
: "${GATEWAY_DIR:=}"                      # start two gateways with the files of this directory; empty: none
: "${TLS_DIR:=}"                          # their tls.crt, tls.key, client-ca.crt; empty: GATEWAY_DIR/../gateway-tls
: "${GATEWAY_PORT:=}"                     # their port on two nodes; empty: only in the network of the stack
: "${GATEWAY_IMAGE:=}"                    # the image with Envoy; empty: envoyproxy/envoy:v1.40.0
: "${MONITORING:=}"                       # 1: metrics and Prometheus; empty: none
: "${PROMETHEUS_IMAGE:=}"                 # the image with Prometheus; empty: prom/prometheus:v2.53.5
: "${MEMORY:=}"                           # memory limit of each server, such as 4g; empty: none
: "${CPUS:=}"                             # CPU limit of each server, such as 1.5; empty: none
: "${HEALTHCHECK_INTERVAL:=}"             # seconds between two health checks; empty: 2
: "${HEALTHCHECK_START_PERIOD:=}"         # seconds for loading and warmup, after which an update fails; empty: 60
: "${DRAIN_SECONDS:=}"                    # seconds that a server keeps serving after it was replaced; empty: 5
: "${MAX_CONNECTION_AGE_SECONDS:=}"       # seconds after which a gRPC connection is closed; 0: never; empty: 300
: "${MAX_CONNECTION_AGE_GRACE_SECONDS:=}" # seconds that calls on it may take to finish; empty: no limit
: "${UPDATE_MONITOR:=}"                   # seconds for which a new server must stay up; empty: 10
: "${RUN_DIR:=}"                          # the directory of generated files
: "${START_TIMEOUT:=}"                    # seconds until all replicas must be healthy

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/docker.sh
source "$ROOT/lib/docker.sh"
# shellcheck source=lib/server_flags.sh
source "$ROOT/lib/server_flags.sh"
# shellcheck source=lib/gpus.sh
source "$ROOT/lib/gpus.sh"
# shellcheck source=lib/settings_file.sh
source "$ROOT/lib/settings_file.sh"

ACTION=''
GROUP=stable
DRY_RUN=''
FOLLOW=''
SERVER_FLAGS=()
OLD_TASKS='' # the IDs of the tasks from before the command

set_defaults() {
  setting STACK tfserving
  setting CANARY_IMAGE ''
  setting REPLICAS ''
  setting CANARY_REPLICAS ''
  setting GPUS ''
  setting UPDATE_MONITOR 10
  setting GATEWAY_DIR ''
  setting TLS_DIR ''
  setting GATEWAY_PORT ''
  setting GATEWAY_IMAGE envoyproxy/envoy:v1.40.0
  setting MONITORING ''
  setting PROMETHEUS_IMAGE prom/prometheus:v2.53.5
  # The defaults differ from those of a single container.
  is_set HEALTHCHECK_INTERVAL || HEALTHCHECK_INTERVAL=2
  is_set HEALTHCHECK_START_PERIOD || HEALTHCHECK_START_PERIOD=60
  is_set DRAIN_SECONDS || DRAIN_SECONDS=5
  is_set MAX_CONNECTION_AGE_SECONDS || MAX_CONNECTION_AGE_SECONDS=300
}

parse_arguments() {
  local group='' env_file=''
  while [[ $# -gt 0 ]]; do
    case $1 in
      up | update | rollback | status | down | logs)
        [[ -z $ACTION ]] || reject "$ACTION and $1 are mutually exclusive; use one of them"
        ACTION=$1
        ;;
      stable | canary | gateway | prometheus)
        [[ -z $group ]] || reject "$group and $1 are mutually exclusive; use one of them"
        group=$1
        ;;
      --env-file)
        [[ $# -gt 1 ]] || reject "--env-file needs a file"
        shift
        env_file=$1
        ;;
      --env-file=*) env_file=${1#*=} ;;
      --follow) FOLLOW=yes ;;
      --dry-run) DRY_RUN=yes ;;
      --)
        shift
        SERVER_FLAGS=("$@")
        break
        ;;
      *) handle_option "$1" ;;
    esac
    shift
  done
  [[ -n $ACTION ]] || reject "the action is missing; use one of up, update, rollback, status, down, logs"
  [[ -z $FOLLOW || $ACTION == logs ]] || reject "--follow is an option of logs only; omit it"
  [[ ${#SERVER_FLAGS[@]} -eq 0 || $ACTION == up ]] || reject "$ACTION takes no server flags; use up"
  case $ACTION:$group in
    logs:* | update:stable | update:canary | rollback:stable | rollback:canary) ;;
    *) [[ -z $group ]] || reject "$ACTION does not take $group; omit it" ;;
  esac
  case $ACTION in
    status | logs) [[ -z $DRY_RUN ]] || reject "$ACTION does not support --dry-run; omit it" ;;
  esac
  GROUP=${group:-stable}
  if [[ -n $env_file ]]; then
    load_settings "$env_file"
    set_defaults
  fi
  SERVER_FLAGS=(${FILE_FLAGS[@]+"${FILE_FLAGS[@]}"} ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"})
}

check_count() { # NAME
  check_pattern "$1" '^[0-9]{0,4}$' number 0-9999
  printf -v "$1" '%s' "${!1:+$((10#${!1}))}"
}

check_settings() {
  check_variables
  check_pattern STACK '^[a-zA-Z0-9]([a-zA-Z0-9_-]{0,30}[a-zA-Z0-9])?$' 'stack name' \
    "up to 32 letters, digits, '_' and '-'"
  check_model_name
  set_image_name
  check_image_reference IMAGE_NAME
  [[ -z $CANARY_IMAGE ]] || check_image_reference CANARY_IMAGE
  check_count REPLICAS
  check_count CANARY_REPLICAS
  check_choice GPUS value '' 1
  check_xla
  check_limits
  check_seconds HEALTHCHECK_INTERVAL
  check_seconds HEALTHCHECK_START_PERIOD
  check_seconds DRAIN_SECONDS
  check_seconds MAX_CONNECTION_AGE_SECONDS
  check_seconds MAX_CONNECTION_AGE_GRACE_SECONDS
  check_seconds UPDATE_MONITOR
  check_seconds START_TIMEOUT
  check_server_flags
  check_gateway
  check_choice MONITORING value '' 1
  check_image_reference PROMETHEUS_IMAGE
  ! is_set MODELS_DIR || [[ $MODELS_DIR == /* ]] \
    || reject "MODELS_DIR=$(quoted "$MODELS_DIR") is not an absolute path; it is a path on every node"
}

check_gateway() {
  check_image_reference GATEWAY_IMAGE
  if [[ -z $GATEWAY_DIR ]]; then
    [[ -z $GATEWAY_PORT ]] || log "note: GATEWAY_PORT has no effect without GATEWAY_DIR"
    return
  fi
  [[ -z $GATEWAY_PORT ]] || check_port GATEWAY_PORT
  [[ $GATEWAY_DIR == /* ]] \
    || reject "GATEWAY_DIR=$(quoted "$GATEWAY_DIR") is not an absolute path; it is a path on every node"
  : "${TLS_DIR:=${GATEWAY_DIR%/*}/gateway-tls}"
  [[ $TLS_DIR == /* ]] || reject "TLS_DIR=$(quoted "$TLS_DIR") is not an absolute path; it is a path on every node"
  [[ $ACTION == up && -z $DRY_RUN ]] || return 0
  [[ -f $GATEWAY_DIR/routes.json ]] || reject "GATEWAY_DIR=$(quoted "$GATEWAY_DIR") has no routes.json; create it:" \
    "cp -R $(quoted "$ROOT/deploy/gateway/dynamic") $(quoted "$GATEWAY_DIR")"
  [[ -f $TLS_DIR/tls.crt && -f $TLS_DIR/tls.key ]] \
    || reject "TLS_DIR=$(quoted "$TLS_DIR") has no tls.crt or no tls.key; put the gateways' certificate there"
}

require_manager() {
  local state
  probe_docker || fail "$REASON; $DOCKER_FIX"
  state=$(query_docker info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}')
  [[ $state == 'active true' ]] \
    || fail "this machine is not a Swarm manager ($state); create a Swarm with docker swarm init, or run this on a" \
      "manager"
}

service() { printf '%s_%s' "$STACK" "$1"; } # GROUP

# inspect_service GROUP FORMAT: fails if the service does not exist.
inspect_service() { query_docker service inspect --format "$2" "$(service "$1")" 2>/dev/null; }

require_service() {
  inspect_service "$GROUP" '{{.ID}}' >/dev/null \
    || fail "there is no service $(service "$GROUP"); create the stack with" \
      "$(script_command deploy/swarm/stack.sh STACK) up"
}

# keep_running_settings: what the user does not set stays as it is in a running stack.
keep_running_settings() {
  local format='{{.Spec.Mode.Replicated.Replicas}} {{.Spec.TaskTemplate.ContainerSpec.Image}}' found
  [[ -n $DRY_RUN ]] || found=$(inspect_service stable "$format") || found=''
  if [[ -n ${found:-} ]]; then
    is_set REPLICAS || REPLICAS=${found%% *}
    is_set IMAGE_NAME || IMAGE_NAME=${found#* }
  fi
  [[ -n $DRY_RUN ]] || found=$(inspect_service canary "$format") || found=''
  if [[ -n ${found:-} ]]; then
    is_set CANARY_REPLICAS || CANARY_REPLICAS=${found%% *}
    is_set CANARY_IMAGE || CANARY_IMAGE=${found#* }
  fi
  REPLICAS=${REPLICAS:-2} CANARY_REPLICAS=${CANARY_REPLICAS:-0} CANARY_IMAGE=${CANARY_IMAGE:-$IMAGE_NAME}
}

# resolve_mode IMAGE...: prints whether docker may look up digests. An image without a registry exists only on this
# machine, or has the same name on Docker Hub.
resolve_mode() {
  local image
  for image; do
    case ${image%%/*} in
      "$image") printf never && return ;;
      *[.:]* | localhost) ;;
      *) printf never && return ;;
    esac
  done
  printf always
}

# write_bootstrap: writes envoy.yaml with the name of the model.
write_bootstrap() {
  [[ -z $DRY_RUN ]] || return 0
  create_run_dir
  sed "s|/v1/models/digits |/v1/models/$MODEL_NAME |" "$ROOT/deploy/gateway/envoy.yaml" >"$BOOTSTRAP" \
    || fail "cannot write $(quoted "$BOOTSTRAP")"
}

checksum() { cat -- "$@" | cksum | cut -d ' ' -f 1; }

# add_gateway: adds the gateways to COMMAND and FILES.
add_gateway() {
  local user checksum
  BOOTSTRAP=$RUN_DIR/$STACK-gateway.yaml
  write_bootstrap
  # The owner of the files can read them, even as root without capabilities.
  user=$(find -H "$GATEWAY_DIR" -prune -printf '%U:%G' 2>/dev/null) || user=101:101
  COMMAND+=("GATEWAY_DIR=$GATEWAY_DIR" "TLS_DIR=$TLS_DIR" "GATEWAY_IMAGE=$GATEWAY_IMAGE" "GATEWAY_USER=$user")
  checksum=$(checksum "$ROOT/deploy/gateway/envoy.yaml" - <<<"$MODEL_NAME")
  COMMAND+=("GATEWAY_BOOTSTRAP=$BOOTSTRAP" "GATEWAY_CHECKSUM=$checksum")
  FILES+=(gateway.yml)
  [[ -z $GATEWAY_PORT ]] || COMMAND+=("GATEWAY_PORT=$GATEWAY_PORT")
  [[ -z $GATEWAY_PORT ]] || FILES+=(gateway_port.yml)
}

# add_xla: adds the environment of XLA to COMMAND, and its flag to SERVER_FLAGS.
add_xla() {
  local device=${GPUS:+gpu} environment=''
  device=${device:-cpu}
  case $XLA in
    true | auto)
      SERVER_FLAGS=("--xla_${device}_compilation_enabled=true" ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"})
      ;;
  esac
  [[ $XLA != auto ]] || environment=$(xla_environment "$device")
  COMMAND+=("TF_XLA_FLAGS=$environment")
}

# add_monitoring: adds Prometheus to COMMAND and FILES, and the metrics of the servers to SERVER_FLAGS.
add_monitoring() {
  COMMAND+=("PROMETHEUS_IMAGE=$PROMETHEUS_IMAGE")
  COMMAND+=("MONITORING_CHECKSUM=$(checksum "$ROOT"/deploy/monitoring/{monitoring.config,prometheus/*.yml})")
  FILES+=(monitoring.yml)
  SERVER_FLAGS=(--monitoring_config_file=/etc/tfserving/monitoring.config ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"})
}

# set_deploy_command: sets COMMAND.
set_deploy_command() {
  local name flags='' FILES=(stack.yml)
  COMMAND=(env)
  [[ -z $GATEWAY_DIR ]] || add_gateway
  [[ -z $MONITORING ]] || add_monitoring
  add_xla
  for name in ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}; do
    flags+="${flags:+ }$(quoted "$name")"
  done
  COMMAND+=("STACK=$STACK" "IMAGE_NAME=$IMAGE_NAME" "CANARY_IMAGE=$CANARY_IMAGE" "REPLICAS=$REPLICAS")
  COMMAND+=("CANARY_REPLICAS=$CANARY_REPLICAS" "SERVER_FLAGS=$flags" "MEMORY=${MEMORY:-0}" "CPUS=${CPUS:-0}")
  for name in HEALTHCHECK_INTERVAL HEALTHCHECK_START_PERIOD DRAIN_SECONDS MAX_CONNECTION_AGE_SECONDS \
    MAX_CONNECTION_AGE_GRACE_SECONDS UPDATE_MONITOR; do
    COMMAND+=("$name=${!name}")
  done
  # After the drain, tensorflow_model_server exits within 10 ms, and the embedded server takes up to 10 s.
  COMMAND+=("STOP_SECONDS=$((DRAIN_SECONDS + 15))")
  ! is_set MODELS_DIR || COMMAND+=("MODELS_DIR=$MODELS_DIR")
  ! is_set MODELS_DIR || FILES+=(models.yml)
  [[ -z $GPUS ]] || FILES+=(gpus.yml)
  COMMAND+=(docker stack deploy --with-registry-auth --resolve-image "$(resolve_mode "$IMAGE_NAME" "$CANARY_IMAGE")")
  for name in "${FILES[@]}"; do
    COMMAND+=(--compose-file "$DIRECTORY/$name")
  done
  COMMAND+=("$STACK")
}

# run_command GROUP...: runs COMMAND, which changes these groups, or prints it in a dry run.
run_command() {
  local group
  if [[ -n $DRY_RUN ]]; then
    print_command "${COMMAND[@]}"
    exit
  fi
  for group; do
    # a service that does not exist yet has none
    OLD_TASKS+=" $(query_docker service ps --quiet --no-trunc "$(service "$group")" 2>/dev/null | tr '\n' ' ')" || true
  done
  "${COMMAND[@]}" >/dev/null || fail "docker failed with exit code $?; its output is above"
}

# read_state GROUP: sets UPDATE to the state of the last update, IMAGE and WANTED to the image and the number of servers
# that it should have, RUNNING to the number of servers that run that image, and OTHERS to that of all others.
read_state() {
  local state image task format='{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}|{{.Spec.Mode.Replicated.Replicas}}|'
  format+='{{.Spec.TaskTemplate.ContainerSpec.Image}}'
  state=$(inspect_service "$1" "$format") || fail "docker reports no service $(service "$1")"
  IFS='|' read -r UPDATE WANTED IMAGE <<<"$state"
  RUNNING=0 OTHERS=0
  while IFS='|' read -r image task; do
    case $image:$task in
      "${IMAGE%@*}:Running"*) RUNNING=$((RUNNING + 1)) ;;
      ?*:*) OTHERS=$((OTHERS + 1)) ;;
    esac
  done < <(query_docker service ps --no-trunc --filter desired-state=running --format '{{.Image}}|{{.CurrentState}}' \
    "$(service "$1")" 2>/dev/null)
}

# wait_until_converged GROUP...: returns when all replicas of the groups run; exits if an update was rolled back.
wait_until_converged() {
  local start=$SECONDS group logged='' pending settled=0 text
  local UPDATE WANTED IMAGE RUNNING OTHERS
  # Swarm begins an update shortly after the command, so one good poll is not enough.
  while [[ $settled -lt 2 ]]; do
    pending=''
    for group; do
      read_state "$group"
      text="$group: $RUNNING of $WANTED replicas run $IMAGE"
      case $UPDATE in
        rollback_completed)
          [[ $ACTION == rollback ]] || report_rollback "$group" "$start"
          ;;
        paused | rollback_paused)
          report_failures "$group"
          fail "$group: the $ACTION stopped ($UPDATE) after $((SECONDS - start)) s; $text"
          ;;
        rollback_started)
          [[ $ACTION == rollback ]] || text="$group: the update failed, rolling back"
          pending=$text
          ;;
        updating) pending=$text ;;
      esac
      [[ $RUNNING -eq $WANTED && $OTHERS -eq 0 ]] || pending=${pending:-$text}
    done
    if [[ -z $pending ]]; then
      settled=$((settled + 1))
    else
      settled=0
      [[ $pending == "$logged" ]] || log "$pending"
      logged=$pending
      if ((SECONDS - start > START_TIMEOUT)); then
        report_failures "$@"
        fail "not all replicas run within START_TIMEOUT=$START_TIMEOUT s; Swarm continues to try; $pending"
      fi
    fi
    [[ $settled -ge 2 ]] || sleep 0.5
  done
  for group; do
    read_state "$group"
    log "$group: $RUNNING of $WANTED replicas run $IMAGE ($((SECONDS - start)) s)"
  done
}

report_rollback() { # GROUP START
  report_failures "$1"
  fail "$1: the update failed and was rolled back after $((SECONDS - $2)) s; all servers run $IMAGE"
}

# report_failures GROUP...: prints why servers that the command started failed, with the end of the log of the latest.
report_failures() {
  local group failed id line format='{{.ID}}|{{.Name}} {{.Image}}: {{.CurrentState}} {{.Error}}'
  for group; do
    failed=''
    while IFS= read -r line; do
      [[ " $OLD_TASKS " == *" ${line%%|*} "* ]] || failed+="${failed:+$'\n'}$line"
    done < <(query_docker service ps --no-trunc --format "$format" "$(service "$group")" 2>/dev/null \
      | grep -E '\|.*(Failed|Rejected|Pending|non-zero exit|unhealthy)')
    [[ -n $failed ]] || continue
    failed=$(head -n 3 <<<"$failed")
    printf '%s\n' "$failed" | sed 's/^[^|]*|/  /' >&2
    id=${failed%%|*}
    ! matches "${failed%%$'\n'*}" ': (Pending|Rejected) ' || continue # it has no log
    log "the end of its log:"
    docker_within 10 service logs --raw --tail 20 "$id" >&2 2>&1 || true
  done
}

up() {
  local others=() port
  [[ -n $DRY_RUN ]] || require_manager
  keep_running_settings
  set_deploy_command
  run_command stable canary gateway prometheus
  [[ -z $GATEWAY_DIR ]] || others+=(gateway)
  [[ -z $MONITORING ]] || others+=(prometheus)
  wait_until_converged stable canary ${others[@]+"${others[@]}"}
  port=${GATEWAY_PORT:+, and to port $GATEWAY_PORT of the nodes of the gateways}
  [[ -z $GATEWAY_DIR ]] \
    || log "clients connect to gateway:8443 in the network $STACK-servers$port (gRPC and REST over TLS)"
  log "clients in the network $STACK-servers connect to stable:8500 (gRPC) and stable:8501 (REST)"
}

update() {
  local image=$IMAGE_NAME variable=IMAGE_NAME replicas=$REPLICAS
  if [[ $GROUP == canary ]]; then
    image=$CANARY_IMAGE variable=CANARY_IMAGE replicas=$CANARY_REPLICAS
  fi
  is_set "$variable" || reject "$variable is not set; set it to the new image of $GROUP"
  [[ -n $DRY_RUN ]] || require_manager
  [[ -n $DRY_RUN ]] || require_service
  COMMAND=(docker service update --detach --with-registry-auth --image "$image")
  [[ $(resolve_mode "$image") == always ]] || COMMAND+=(--no-resolve-image)
  [[ -z $replicas ]] || COMMAND+=(--replicas "$replicas")
  COMMAND+=("$(service "$GROUP")")
  run_command "$GROUP"
  wait_until_converged "$GROUP"
}

rollback() {
  [[ -n $DRY_RUN ]] || require_manager
  [[ -n $DRY_RUN ]] || require_service
  [[ -n $DRY_RUN || -n $(inspect_service "$GROUP" '{{if .PreviousSpec}}yes{{end}}') ]] \
    || fail "$GROUP has no earlier state: it was not updated, or the last update was rolled back"
  COMMAND=(docker service rollback --detach "$(service "$GROUP")")
  run_command "$GROUP"
  wait_until_converged "$GROUP"
}

status() {
  local group code=0 update
  local UPDATE WANTED IMAGE RUNNING OTHERS
  require_manager
  GROUP=stable require_service
  for group in stable canary gateway prometheus; do
    inspect_service "$group" '' >/dev/null || continue
    read_state "$group"
    update=$(inspect_service "$group" '{{if .UpdateStatus}}{{.UpdateStatus.Message}}{{end}}')
    printf '%s: %s of %s replicas run %s%s\n' "$group" "$RUNNING" "$WANTED" "$IMAGE" "${update:+ ($update)}"
    query_docker service ps --no-trunc --filter desired-state=running \
      --format '  {{.Name}}  {{.Node}}  {{.CurrentState}}  {{.Error}}' "$(service "$group")" || true
    [[ $RUNNING -eq $WANTED ]] || code=1
  done
  return "$code"
}

down() {
  local deadline
  if [[ -z $DRY_RUN ]]; then
    require_manager
    [[ -n $(query_docker stack services --quiet "$STACK" 2>/dev/null) ]] || fail "there is no stack $STACK"
  fi
  COMMAND=(docker stack rm "$STACK")
  run_command
  # The network goes when the last server has stopped; only then can a stack of the same name be created.
  deadline=$((SECONDS + DRAIN_SECONDS + 30))
  while [[ -n $(query_docker network ls --quiet --filter "label=com.docker.stack.namespace=$STACK") ]]; do
    ((SECONDS <= deadline)) \
      || fail "the network $STACK-servers is still in use; disconnect its containers and remove it:" \
        "docker network rm $STACK-servers"
    sleep 0.5
  done
  log "removed $STACK"
}

logs() {
  require_manager
  require_service
  exec docker service logs --raw ${FOLLOW:+--follow} "$(service "$GROUP")" 2>&1
}

main() {
  set_defaults
  parse_arguments "$@"
  check_settings
  "$ACTION"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
