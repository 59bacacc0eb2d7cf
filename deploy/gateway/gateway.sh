#!/usr/bin/env bash
#
# Runs Envoy as a gateway in front of the containers of run_tf_serving.sh: gRPC and REST on one TLS port, with
# authentication, limits, retries and weighted groups of servers.
#
# Usage: bash deploy/gateway/gateway.sh up [--dry-run]
#        bash deploy/gateway/gateway.sh status|down|logs [--follow]
#
#   up         create GATEWAY_DIR with the initial files unless it exists, connect the containers STABLE and CANARY to
#              NETWORK, start the gateway and wait until it listens
#   status     print the share of each group, how many of its servers are healthy, and rejected files; exit with 0 if
#              every group that gets traffic has a healthy server
#   down       stop the gateway; its files stay
#   logs       print the access log and the messages of Envoy; --follow waits for more
#   --dry-run  check the settings and print the docker command, but do not run it
#
# Containers of NETWORK with the alias stable or canary belong to that group without being named in STABLE or CANARY.
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
DIRECTORY=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)
ROOT=$(CDPATH='' cd -- "$DIRECTORY/../.." && pwd)

# Write a value after := or set the variable in the environment, which takes precedence. The defaults of empty
# variables are in lib/settings.sh, for all scripts.
: "${GATEWAY_NAME:=tfserving-gateway}"         # the name of the gateway's container
: "${GATEWAY_IMAGE:=envoyproxy/envoy:v1.40.0}" # the image with Envoy
: "${GATEWAY_PORT:=8443}"                      # the port for gRPC and REST over TLS
: "${METRICS_PORT:=9902}"                      # the port for metrics, on 127.0.0.1
: "${BIND_ADDRESS:=}"                          # the address to listen on
: "${GATEWAY_DIR:=}"                           # what changes at run time; empty: gateway in the checkout
: "${TLS_DIR:=}"                               # tls.crt, tls.key, client-ca.crt; empty: GATEWAY_DIR/../gateway-tls
: "${AUTHENTICATION:=token}"                   # token or certificate: how clients authenticate
: "${NETWORK:=tfserving}"                      # the docker network of the gateway and the servers
: "${STABLE:=}"                                # containers to connect as servers of the group stable
: "${CANARY:=}"                                # containers to connect as servers of the group canary
: "${MODEL_NAME:=}"                            # the model that must be AVAILABLE on a server
: "${RESTART_POLICY:=}"                        # no, always, unless-stopped, on-failure or on-failure:N
: "${MEMORY:=}"                                # memory limit, such as 2g, without swap; empty: none
: "${CPUS:=}"                                  # CPU limit, such as 1.5; empty: none
: "${RUN_DIR:=}"                               # the directory of generated files
: "${START_TIMEOUT:=}"                         # seconds until the gateway must listen

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/python.sh
source "$ROOT/lib/python.sh"
# shellcheck source=lib/docker.sh
source "$ROOT/lib/docker.sh"
# shellcheck source=lib/server_status.sh
source "$ROOT/lib/server_status.sh"

ACTION=''
DRY_RUN=''
FOLLOW=''
GROUPS_OF_SERVERS=(stable canary)

parse_arguments() {
  while [[ $# -gt 0 ]]; do
    case $1 in
      up | status | down | logs)
        [[ -z $ACTION ]] || reject "$ACTION and $1 are mutually exclusive; use one of up, status, down, logs"
        ACTION=$1
        ;;
      --dry-run) DRY_RUN=yes ;;
      --follow) FOLLOW=yes ;;
      *) handle_option "$1" ;;
    esac
    shift
  done
  [[ -n $ACTION ]] || reject "the action is missing; use one of up, status, down, logs"
  [[ -z $DRY_RUN || $ACTION == up ]] || reject "$ACTION does not support --dry-run; use it with up"
  [[ -z $FOLLOW || $ACTION == logs ]] || reject "--follow is an option of logs only; omit it"
}

check_settings() {
  local name
  check_variables
  : "${GATEWAY_DIR:=$ROOT/gateway}"
  GATEWAY_DIR=${GATEWAY_DIR%/} # GATEWAY_DIR.new is beside it
  [[ $GATEWAY_DIR == /* ]] || GATEWAY_DIR=$PWD/$GATEWAY_DIR
  : "${TLS_DIR:=${GATEWAY_DIR%/*}/gateway-tls}"
  [[ $TLS_DIR == /* ]] || TLS_DIR=$PWD/$TLS_DIR
  for name in GATEWAY_NAME NETWORK; do
    check_pattern "$name" '^[a-zA-Z0-9][a-zA-Z0-9_.-]+$' name \
      "two or more letters, digits, '_', '.' and '-'; must start with a letter or a digit"
  done
  for name in STABLE CANARY; do
    check_pattern "$name" '^[a-zA-Z0-9_. -]*$' 'list of containers' "names separated by spaces"
  done
  check_pattern GATEWAY_IMAGE '^[a-zA-Z0-9][a-zA-Z0-9_./:@-]*$' 'image reference' 'such as envoyproxy/envoy:v1.40.0'
  check_choice AUTHENTICATION 'kind of authentication' token certificate
  check_container_settings
  check_bind_address
  check_port GATEWAY_PORT
  check_port METRICS_PORT
  [[ $GATEWAY_PORT != "$METRICS_PORT" ]] \
    || reject "GATEWAY_PORT and METRICS_PORT are both $GATEWAY_PORT; set them to different ports"
  check_seconds START_TIMEOUT
  check_model_name
}

# container_user: prints the user of the container, who must be able to read the files. root cannot read the files of
# others without capabilities, so Envoy's own user takes its place.
container_user() {
  case $(id -u) in
    0) printf 101:101 ;;
    *) printf '%s:%s' "$(id -u)" "$(id -g)" ;;
  esac
}

check_tls_files() {
  local file
  for file in tls.crt tls.key; do
    [[ -f $TLS_DIR/$file ]] || reject "TLS_DIR=$(quoted "$TLS_DIR") has no $file; put the gateway's" \
      "certificate there, or for a test create one: $(self_signed_command)"
  done
  for file in tls.crt tls.key client-ca.crt; do
    case $(readlink "$TLS_DIR/$file" || true) in
      /* | ../*) reject "$(quoted "$TLS_DIR/$file") is a link to a file outside TLS_DIR, which the container does not" \
        "have; copy the file" ;;
    esac
  done
  [[ $(id -u) -ne 0 || $(stat -L -c %A "$TLS_DIR") == d??????r?[xt] ]] \
    || reject "TLS_DIR=$(quoted "$TLS_DIR") is not readable by user 101, as which Envoy runs if you are root; change" \
      "its permissions: chmod o+rx $(quoted "$TLS_DIR")"
  [[ $AUTHENTICATION != certificate || -f $TLS_DIR/client-ca.crt ]] \
    || reject "TLS_DIR=$(quoted "$TLS_DIR") has no client-ca.crt, the authority of client certificates; put it there," \
      "or set AUTHENTICATION=token"
}

self_signed_command() {
  printf 'mkdir -p %s && ' "$(quoted "$TLS_DIR")"
  print_command openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$TLS_DIR/tls.key" -out "$TLS_DIR/tls.crt"
}

# create_gateway_dir: the files contain the keys of clients, so only this user, and the container's, may read them.
create_gateway_dir() {
  local staging=$GATEWAY_DIR.new
  [[ ! -e $GATEWAY_DIR ]] || return 0
  rm -rf -- "$staging"
  (umask 077 && mkdir -p -- "$staging" && cp -- "$DIRECTORY"/dynamic/* "$staging") \
    || fail "GATEWAY_DIR=$(quoted "$GATEWAY_DIR") cannot be created; set GATEWAY_DIR to another directory"
  [[ $AUTHENTICATION == token ]] || (umask 077 && cp -- "$DIRECTORY"/client_certificates/*.json "$staging")
  [[ $(id -u) -ne 0 ]] || chown -R "$(container_user)" "$staging"
  mv -- "$staging" "$GATEWAY_DIR"
  log "created $GATEWAY_DIR; clients authenticate with a $AUTHENTICATION"
}

# check_authentication: the files of an existing directory decide.
check_authentication() {
  local found=token
  [[ -e $GATEWAY_DIR ]] || return 0
  [[ -r $GATEWAY_DIR/authentication.json ]] || reject "GATEWAY_DIR=$(quoted "$GATEWAY_DIR") has no readable" \
    "authentication.json; remove the directory, or set GATEWAY_DIR to another one"
  ! grep -q mtls_authenticated "$GATEWAY_DIR/authentication.json" || found=certificate
  [[ $AUTHENTICATION == "$found" ]] || reject "AUTHENTICATION=$AUTHENTICATION, but clients of" \
    "GATEWAY_DIR=$(quoted "$GATEWAY_DIR") authenticate with a $found; set AUTHENTICATION=$found, or GATEWAY_DIR to" \
    "another directory"
}

# own_tls_files: root has no privileges in the container, so Envoy's user gets the files that it reads, and no others.
own_tls_files() {
  local file
  [[ $(id -u) -eq 0 ]] || return 0
  for file in "$TLS_DIR"/{tls.crt,tls.key,client-ca.crt}; do
    [[ -f $file && $(stat -L -c %u:%g "$file") != "$(container_user)" ]] || continue
    chown "$(container_user)" "$file"
    log "changed the owner of $(quoted "$file") to user $(container_user), as which Envoy runs"
  done
}

# write_bootstrap: envoy.yaml with the name of the model.
write_bootstrap() {
  create_run_dir
  sed "s|/v1/models/digits |/v1/models/$MODEL_NAME |" "$DIRECTORY/envoy.yaml" >"$BOOTSTRAP.new"
  chmod 644 "$BOOTSTRAP.new"
  mv -- "$BOOTSTRAP.new" "$BOOTSTRAP"
}

gateway_command() {
  local published
  published=$(host_port "$BIND_ADDRESS" '')
  COMMAND=(docker run --detach --name "$GATEWAY_NAME" --label "tfserving.gateway=$published$GATEWAY_PORT")
  COMMAND+=(--label "tfserving.gateway_metrics=127.0.0.1:$METRICS_PORT")
  COMMAND+=(--network "$NETWORK" --publish "$published$GATEWAY_PORT:8443" --publish "127.0.0.1:$METRICS_PORT:9902")
  COMMAND+=(--user "$(container_user)" --read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 1024)
  [[ -z $MEMORY ]] || COMMAND+=(--memory "$MEMORY" --memory-swap "$MEMORY")
  [[ -z $CPUS ]] || COMMAND+=(--cpus "$CPUS")
  COMMAND+=(--restart "$RESTART_POLICY")
  case ${LOG_DRIVER:-json-file} in
    json-file | local) COMMAND+=(--log-opt max-size=10m --log-opt max-file=3) ;;
  esac
  COMMAND+=(--mount "type=bind,source=$BOOTSTRAP,target=/etc/envoy/envoy.yaml,readonly")
  # Directories: a mounted file would not change when it is replaced.
  COMMAND+=(--mount "type=bind,source=$GATEWAY_DIR,target=/etc/envoy/dynamic,readonly")
  COMMAND+=(--mount "type=bind,source=$TLS_DIR,target=/etc/envoy/tls,readonly")
  COMMAND+=("$GATEWAY_IMAGE" --config-path /etc/envoy/envoy.yaml --disable-hot-restart --log-level warning)
  COMMAND+=(--file-flush-interval-msec 1000)
}

# connect_servers GROUP CONTAINER...: gives containers the name GROUP in the network. A container that has it stays
# connected: disconnecting it would break its requests.
connect_servers() {
  local group=$1 container networks
  # shellcheck disable=SC2016 # variables of the template
  local format='{{range $name, $network := .NetworkSettings.Networks}}{{println}}{{$name}}:,'
  # shellcheck disable=SC2016
  format+='{{range $network.Aliases}}{{.}},{{end}}{{end}}'
  shift
  for container; do
    networks=$(query_docker container inspect --format "$format" "$container" 2>/dev/null) \
      || reject "container $container does not exist; start it with run_tf_serving.sh"
    networks=$(grep "^$NETWORK:," <<<"$networks" || true)
    [[ $networks != *",$group,"* ]] || continue
    [[ -z $networks ]] || query_docker network disconnect "$NETWORK" "$container" >/dev/null
    query_docker network connect --alias "$group" "$NETWORK" "$container" \
      || fail "container $container cannot be connected to network $NETWORK; docker's output is above"
    log "$container is a server of the group $group"
  done
}

require_docker_daemon() { probe_docker || fail "$REASON; $DOCKER_FIX"; }

# find_gateway: sets FOUND to the state of the container, or to '', and FOUND_... to its addresses.
find_gateway() {
  local format='{{.State.Status}}|{{index .Config.Labels "tfserving.gateway"}}|'
  format+='{{index .Config.Labels "tfserving.gateway_metrics"}}|{{.Config.Image}}'
  FOUND='' FOUND_ADDRESS='' FOUND_METRICS='' FOUND_IMAGE=''
  IFS='|' read -r FOUND FOUND_ADDRESS FOUND_METRICS FOUND_IMAGE \
    < <(query_docker container inspect --format "$format" "$GATEWAY_NAME" 2>/dev/null) || true
  [[ -z $FOUND || -n $FOUND_ADDRESS ]] \
    || fail "container $GATEWAY_NAME was not started by this script; set GATEWAY_NAME to another name"
}

require_gateway() {
  require_docker_daemon
  find_gateway
  [[ -n $FOUND ]] || fail "$GATEWAY_NAME does not exist; start it: bash deploy/gateway/gateway.sh up"
}

# get_metrics PORT PATH: prints the body of a response of the metrics port.
get_metrics() { run_with_timeout "$RESPONSE_TIMEOUT" request_metrics "$@" 2>/dev/null | sed '1,/^$/d'; }
request_metrics() {
  {
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    tr -d '\r' <&3
  } 3<>"/dev/tcp/127.0.0.1/$1"
}

wait_until_ready() {
  local deadline=$((SECONDS + START_TIMEOUT))
  until [[ $(get_metrics "$METRICS_PORT" /ready) == LIVE* ]] \
    && is_port_open "$(client_address "$BIND_ADDRESS")" "$GATEWAY_PORT"; do
    find_gateway
    if [[ $FOUND != running ]] || ((SECONDS > deadline)); then
      discard_gateway "the gateway did not listen within START_TIMEOUT=$START_TIMEOUT s"
    fi
    sleep 0.2
  done
  # Envoy listens without the files that it rejects.
  [[ $(count_rejected "$(get_metrics "$METRICS_PORT" /stats/prometheus)") -eq 0 ]] \
    || discard_gateway "the gateway rejected files of $(quoted "$GATEWAY_DIR") or $(quoted "$TLS_DIR")"
}

# discard_gateway MESSAGE: prints the log, removes the container and fails.
discard_gateway() {
  query_docker logs --tail 40 "$GATEWAY_NAME" >&2 || true
  query_docker rm --force "$GATEWAY_NAME" >/dev/null 2>&1 || true
  fail "$1; the end of its log is above"
}

up() {
  check_authentication
  check_tls_files
  BOOTSTRAP=$RUN_DIR/$GATEWAY_NAME.yaml
  if [[ -n $DRY_RUN ]]; then
    gateway_command
    print_command "${COMMAND[@]}"
    return
  fi
  require_docker_daemon
  find_gateway
  case $FOUND in
    '') ;;
    created | exited | dead) query_docker rm "$GATEWAY_NAME" >/dev/null ;;
    *) reject "$GATEWAY_NAME is running already; to restart it, stop it first: bash deploy/gateway/gateway.sh down" ;;
  esac
  create_gateway_dir
  own_tls_files
  write_bootstrap
  query_docker network inspect "$NETWORK" >/dev/null 2>&1 || query_docker network create "$NETWORK" >/dev/null \
    || fail "network $NETWORK cannot be created; docker's output is above"
  # shellcheck disable=SC2086 # one word a container
  connect_servers stable $STABLE
  # shellcheck disable=SC2086
  connect_servers canary $CANARY
  gateway_command
  docker_within "$((START_TIMEOUT + PULL_TIMEOUT))" "${COMMAND[1]}" "${COMMAND[@]:2}" >/dev/null \
    || fail "docker run failed; its output is above"
  wait_until_ready
  log "listening: gRPC and REST https://$(host_port "$BIND_ADDRESS" "$GATEWAY_PORT")," \
    "metrics http://127.0.0.1:$METRICS_PORT/stats/prometheus"
  ! grep -q '"policies": {}' "$GATEWAY_DIR/authentication.json" \
    || log "no client can call yet; create one: tfserving clients add NAME --gateway-dir $(quoted "$GATEWAY_DIR")"
}

# metric_sum METRICS PATTERN: the sum of the values of the lines that match.
metric_sum() { awk -v pattern="$2" '$0 ~ pattern { sum += $NF } END { printf "%d", sum }' <<<"$1"; }

# count_rejected METRICS: how many changes of files the gateway has rejected since its start.
count_rejected() { metric_sum "$1" '(_update_rejected|_key_rotation_failed)[{]'; }

status() {
  local metrics group healthy total weight rejected code=0
  require_gateway
  printf '%s: %s, %s, https://%s, metrics http://%s/stats/prometheus\n' \
    "$GATEWAY_NAME" "$FOUND" "$FOUND_IMAGE" "$FOUND_ADDRESS" "$FOUND_METRICS"
  [[ $FOUND == running ]] || return 1
  metrics=$(get_metrics "${FOUND_METRICS##*:}" /stats/prometheus) || true
  [[ -n $metrics ]] || fail "$FOUND_METRICS did not respond within $RESPONSE_TIMEOUT s"
  for group in "${GROUPS_OF_SERVERS[@]}"; do
    healthy=$(metric_sum "$metrics" "^envoy_cluster_membership_healthy[{].*\"$group-grpc\"")
    total=$(metric_sum "$metrics" "^envoy_cluster_membership_total[{].*\"$group-grpc\"")
    weight=$(awk -v name="\"$group-grpc\"" 'index($0, name) { getline; gsub(/[^0-9]/, ""); print; exit }' \
      "$GATEWAY_DIR/routes.json" 2>/dev/null) || weight=''
    printf '%-8s %3s %%  %s of %s servers healthy\n' "$group" "${weight:--}" "$healthy" "$total"
    [[ $weight == 0 || $healthy -gt 0 ]] || code=1
  done
  rejected=$(count_rejected "$metrics")
  [[ $rejected -eq 0 ]] || log "warning: the gateway has rejected $rejected changes of files since its start;" \
    "its log: bash deploy/gateway/gateway.sh logs"
  return "$code"
}

down() {
  require_docker_daemon
  find_gateway
  if [[ -z $FOUND ]]; then
    log "$GATEWAY_NAME is not running"
    return
  fi
  docker_within 30 stop "$GATEWAY_NAME" >/dev/null || fail "docker stop failed; its output is above"
  query_docker rm --force "$GATEWAY_NAME" >/dev/null || fail "docker rm failed; its output is above"
  log "stopped $GATEWAY_NAME; $GATEWAY_DIR stays"
}

logs() {
  require_gateway
  exec docker logs ${FOLLOW:+--follow} "$GATEWAY_NAME" 2>&1
}

main() {
  parse_arguments "$@"
  check_settings
  "$ACTION"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
