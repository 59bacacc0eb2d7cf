# shellcheck shell=bash
# Addresses of a running server and the states of its models over REST, with bash alone.

# shellcheck source=docker/server_config.sh
source "$ROOT/docker/server_config.sh"

# client_address ADDRESS: prints where a client on this machine reaches a server that is bound to ADDRESS.
client_address() {
  case $1 in
    0.0.0.0) printf '127.0.0.1' ;;
    ::) printf '::1' ;;
    *) printf '%s' "$1" ;;
  esac
}

# host_port ADDRESS PORT: prints both as one word.
host_port() {
  case $1 in
    *:*) printf '[%s]:%s' "$1" "$2" ;;
    *) printf '%s:%s' "$1" "$2" ;;
  esac
}

RESPONSE_TIMEOUT=5 # seconds until a request for the states of a model fails

is_port_open() { run_with_timeout 3 open_port "$1" "$2" 2>/dev/null; } # ADDRESS PORT
open_port() { : 3<>"/dev/tcp/$1/$2"; }

# list_config_models FILE: prints the model names of a models.config, one per line.
list_config_models() { list_model_names "$1" | tr '\0' '\n'; }

# list_states ADDRESS PORT MODEL: prints "VERSION STATE" lines, newest first; fails without a response, with 124 after
# RESPONSE_TIMEOUT.
list_states() {
  local response
  response=$(run_with_timeout "$RESPONSE_TIMEOUT" get_model_status "$@" 2>/dev/null) || return
  [[ ${response%%$'\n'*} == HTTP/*' 200 '* ]] || return
  printf '%s' "$response" | tr -d '[:space:]' | grep -oE '"version":"?-?[0-9]+"?,"state":"[A-Z]+"' \
    | sed -E 's/"version":"?(-?[0-9]+)"?,"state":"([A-Z]+)"/\1 \2/'
}

# shellcheck disable=SC2034 # the engines use it
POLLING='--model_config_file_poll_wait_seconds=0*[1-9]' # in a server's command line

# find_unavailable ADDRESS PORT MODEL...: prints the first model that is not AVAILABLE, and why; else nothing.
find_unavailable() {
  local address=$1 port=$2 model states
  shift 2
  for model; do
    if ! states=$(list_states "$address" "$port" "$model"); then
      printf '%s: no response yet\n' "$model"
    elif [[ $states != *' AVAILABLE'* ]]; then
      printf '%s: version %s\n' "$model" "${states%%$'\n'*}"
    else
      continue
    fi
    return
  done
}
