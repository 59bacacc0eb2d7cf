#!/usr/bin/env bash
#
# Says whether the server in this container can take requests: every model of the configuration in use has an
# AVAILABLE version, asked by REST, and no drain has begun.
#
# Usage: tfserving-healthcheck
#
# Serves as HEALTHCHECK and as an exec readiness probe. Prints one line; exits 0 when healthy, else 1.
#
# From the environment:
#   HEALTHCHECK_SECONDS   how long the whole check may take
#   STATE_DIR             as for the entrypoint
set -Eeuo pipefail

: "${HEALTHCHECK_SECONDS:=8}"

# The entrypoint knows STATE_DIR and how the server reads its flags; in the image it has the same prefix.
# shellcheck source=lib/entrypoint.sh
source "${BASH_SOURCE[0]%healthcheck*}entrypoint${BASH_SOURCE[0]##*healthcheck}"

# The lexical grammar of protobuf's text format, one token a match; a comment is one too.
QUOTED='"([^"\\]|\\.)*"'
TOKEN="#.*|$QUOTED|${QUOTED//\"/\'}|[A-Za-z0-9_.+-]+|[][{}<>:;,/]"

unhealthy() {
  printf 'unhealthy: %s\n' "${*//[[:cntrl:]]/?}"
  exit 1
}

# unquote LITERAL: its text; as in C, and \" and \' stand for the quotes, which %b leaves alone.
unquote() {
  local text=${1:1:${#1}-2}
  text=${text//\\\"/\"}
  text=${text//\\\'/\'}
  printf '%b' "$text"
}

# model_names FILE: the names in a ModelServerConfig in text format, NUL after each.
model_names() {
  local token field='' path='' literal='' name=''
  while IFS= read -r token; do
    case $token in
      '#'*) continue ;;
      '{' | '<') path+=/$field ;;
      '}' | '>')
        field=${path##*/} # for the next element of a list: config [ {…}, {…} ]
        path=${path%/*}
        ;;
      [\"\']*)
        [[ $path/$field == /model_config_list/config/name ]] || continue
        name+=$(unquote "$token") # strings side by side are one
        literal=yes
        continue
        ;;
      []:\;,/[]) ;;
      *) field=$token ;;
    esac
    if [[ -n $literal ]]; then
      printf '%s\0' "$name"
      literal='' name=''
    fi
  done < <(grep -oE -- "$TOKEN" "$1")
}

# percent_encode TEXT: safe as one segment of an URL, byte by byte.
percent_encode() {
  local LC_ALL=C text=$1 out='' char i
  for ((i = 0; i < ${#text}; i++)); do
    char=${text:i:1}
    case $char in
      [A-Za-z0-9._-]) ;;
      *) printf -v char '%%%02X' $(($(printf '%d' "'$char") & 255)) ;;
    esac
    out+=$char
  done
  printf '%s\n' "$out"
}

# get PORT PATH: the whole answer. HTTP/1.0: closed at its end and never in chunks.
get() {
  {
    printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$2" >&3
    tr -d '\0' <&3
  } 3<>"/dev/tcp/127.0.0.1/$1"
}

# check_model PORT NAME
check_model() {
  local answer status
  answer=$(get "$1" "/v1/models/$(percent_encode "$2")" 2>/dev/null) \
    || unhealthy "no answer from port $1 (REST) about model $2"
  [[ ! $answer =~ \"state\":[[:space:]]*\"AVAILABLE\" ]] || return 0
  status=${answer%%$'\r'*}
  [[ $status == *' 200 '* ]] || unhealthy "model $2: the server answers ${status#* }"
  unhealthy "model $2 has no AVAILABLE version"
}

check() {
  local command=() models=() config poll model port
  [[ -r $STATE_DIR/command ]] || unhealthy "no server has been started here"
  mapfile -d '' -t command <"$STATE_DIR/command"
  [[ ! -e $STATE_DIR/draining ]] || unhealthy "draining: a stop signal has arrived"
  port=$(flag_value rest_api_port "${command[@]}")
  [[ $port =~ ^[0-9]*[1-9][0-9]*$ ]] || unhealthy "REST is off (--rest_api_port=$port); the check needs it"
  config=$(flag_value model_config_file "${command[@]}")
  poll=$(flag_value model_config_file_poll_wait_seconds "${command[@]}")
  if [[ -z $config ]]; then
    models=("$(flag_value model_name "${command[@]}")")
  elif [[ $poll =~ ^[0-9]*[1-9][0-9]*$ ]]; then
    mapfile -d '' -t models < <(model_names "$config" 2>/dev/null)
  fi
  # The server goes by an earlier file: it does not poll, or found no file, or none that names a model.
  if [[ ${#models[@]} -eq 0 ]]; then
    config=''
    mapfile -d '' -t models < <(model_names "$STATE_DIR/models.config")
  fi
  [[ ${#models[@]} -gt 0 ]] || unhealthy "the models.config in use names no model"
  for model in "${models[@]}"; do
    check_model "$port" "$model"
  done
  # what a poll brought, for when the file is gone or broken later
  if [[ -n $config ]]; then
    cat "$config" >"$STATE_DIR/models.config.new" && mv -f "$STATE_DIR/models.config.new" "$STATE_DIR/models.config"
  fi
  printf 'healthy: %s AVAILABLE\n' "${models[*]//[[:cntrl:]]/?}"
}

# The check runs under `timeout`, since nothing in bash bounds the time that a connection takes to open.
main() {
  local code=0
  case ${1:-} in
    '') ;;
    --now) check && return ;;
    *) unhealthy "unknown argument $1; this command takes none" ;; # docker reserves exit code 2
  esac
  timeout "$HEALTHCHECK_SECONDS" "${BASH_SOURCE[0]}" --now || code=$?
  [[ $code -ne 124 ]] || unhealthy "no answer within $HEALTHCHECK_SECONDS s"
  return "$((code > 0))"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
