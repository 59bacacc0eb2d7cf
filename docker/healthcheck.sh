#!/usr/bin/env bash
#
# Checks whether the server in this container can take requests: every model in the active configuration has an
# AVAILABLE version, as reported over REST, and the server is not draining.
#
# Usage: tfserving-healthcheck
#
# The image's HEALTHCHECK; also usable as an exec readiness probe. Prints one line and exits with 0 (healthy) or 1.
#
# Environment variables:
#   HEALTHCHECK_SECONDS   the time limit of the whole check
#   STATE_DIR             as in the entrypoint
set -Eeuo pipefail

# shellcheck source=docker/server_config.sh
source "${BASH_SOURCE[0]%/*}/server_config.sh"

: "${HEALTHCHECK_SECONDS:=8}"
: "${STATE_DIR:=$(get_state_dir)}"

report_unhealthy() {
  printf 'unhealthy: %s\n' "${*//[[:cntrl:]]/?}"
  exit 1
}

check_model() { # PORT NAME
  local response status
  response=$(get_model_status 127.0.0.1 "$1" "$2" 2>/dev/null) \
    || report_unhealthy "no response from port $1 (REST) for model $2"
  [[ ! $response =~ \"state\":[[:space:]]*\"AVAILABLE\" ]] || return 0
  status=${response%%$'\n'*}
  [[ $status == *' 200 '* ]] || report_unhealthy "model $2: the server responds ${status#* }"
  report_unhealthy "model $2 has no AVAILABLE version"
}

check() {
  local command=() models=() config poll model port
  [[ -r $STATE_DIR/command ]] || report_unhealthy "no server was started in this container"
  mapfile -d '' -t command <"$STATE_DIR/command"
  [[ ! -e $STATE_DIR/draining ]] || report_unhealthy "draining: received a stop signal"
  port=$(get_flag rest_api_port "${command[@]}")
  [[ $port =~ ^[0-9]*[1-9][0-9]*$ ]] || report_unhealthy "REST is off (--rest_api_port=$port); the check needs it"
  config=$(get_flag model_config_file "${command[@]}")
  poll=$(get_flag model_config_file_poll_wait_seconds "${command[@]}")
  if [[ -z $config ]]; then
    models=("$(get_flag model_name "${command[@]}")")
  elif [[ $poll =~ ^[0-9]*[1-9][0-9]*$ ]]; then
    mapfile -d '' -t models < <(list_model_names "$config" 2>/dev/null)
  fi
  # The server uses an earlier config: it does not poll, or the file is missing or names no model.
  if [[ ${#models[@]} -eq 0 ]]; then
    config=''
    mapfile -d '' -t models < <(list_model_names "$STATE_DIR/models.config")
  fi
  [[ ${#models[@]} -gt 0 ]] || report_unhealthy "the active models.config names no model"
  for model in "${models[@]}"; do
    check_model "$port" "$model"
  done
  # The polled config is now the active one, even if the file becomes invalid or disappears later.
  if [[ -n $config ]]; then
    cat "$config" >"$STATE_DIR/models.config.new" && mv -f "$STATE_DIR/models.config.new" "$STATE_DIR/models.config"
  fi
  printf 'healthy: %s AVAILABLE\n' "${models[*]//[[:cntrl:]]/?}"
}

# The check runs under `timeout`, since bash has no time limit for opening a connection.
main() {
  local code=0
  case ${1:-} in
    '') ;;
    --now) check && return ;;
    *) report_unhealthy "unknown argument $1; this command takes none" ;; # docker reserves exit code 2
  esac
  timeout "$HEALTHCHECK_SECONDS" "${BASH_SOURCE[0]}" --now || code=$?
  [[ $code -ne 124 ]] || report_unhealthy "no response within $HEALTHCHECK_SECONDS s"
  return "$((code > 0))"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
