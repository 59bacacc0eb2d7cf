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
# RESPONSE_TIMEOUT, and with 3 if the server has no version of the model.
list_states() {
  local response
  response=$(run_with_timeout "$RESPONSE_TIMEOUT" get_model_status "$@" 2>/dev/null) || return
  case ${response%%$'\n'*} in
    HTTP/*' 200 '*) ;;
    HTTP/*' 404 '*) return 3 ;;
    *) return 1 ;;
  esac
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

# find_failed_load: reads a server's log; prints "MODEL: version VERSION failed to load: ERROR" for the first model
# none of whose versions is loading or loaded. The lines are those of util/retrier.cc and core/loader_harness.cc in
# TensorFlow Serving, and of tfserving/server/core/manager.py.
find_failed_load() {
  LC_ALL=C awk '
    match($0, /[{]name: [^}]* version: [0-9]+[}]/) {
      servable = substr($0, RSTART + 7, RLENGTH - 8)
      split_at(" version: ")
      before = substr($0, 1, RSTART - 1)
      after = substr($0, RSTART + RLENGTH)
      if (before ~ /Loading servable: $/ && after ~ /^ failed: /) fail(substr(after, 10))
      else if (before ~ /Loading servable version $/) state[model, version] = "loading"
      else if (before ~ /Successfully loaded servable version $/) state[model, version] = "loaded"
      next
    }
    match($0, /model .[^ ]+. version [0-9]+: /) {
      servable = substr($0, RSTART + 7, RLENGTH - 9)
      split_at(" version ")
      model = substr(model, 1, length(model) - 1)
      after = substr($0, RSTART + RLENGTH)
      if (after ~ /^loading from /) state[model, version] = "loading"
      else if (after ~ /^AVAILABLE /) state[model, version] = "loaded"
      else if (sub(/^loading failed(; retry [0-9]+ of [0-9]+ in [0-9.e+]+ s)?: /, "", after)) fail(after)
    }
    function split_at(separator,  i) {
      i = index(servable, separator)
      model = substr(servable, 1, i - 1)
      version = substr(servable, i + length(separator))
    }
    function fail(error) {
      if (state[model, version] != "failed") order[++count] = model SUBSEP version SUBSEP error
      state[model, version] = "failed"
    }
    END {
      for (id in state) if (state[id] != "failed") { split(id, parts, SUBSEP); has_other[parts[1]] = 1 }
      for (i = 1; i <= count; i++) {
        split(order[i], parts, SUBSEP)
        if (parts[1] in has_other || state[parts[1], parts[2]] != "failed") continue
        printf "%s: version %s failed to load: %s\n", parts[1], parts[2], parts[3]
        exit
      }
    }'
}
