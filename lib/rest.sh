# shellcheck shell=bash
# What a running server says about its models, by REST and with bash alone; see also lib/healthcheck.sh, which asks
# the same from inside the image.

# in_image FUNCTION ARG...: a function of the image's health check or entrypoint, so that both sides read flags and
# configs alike. They are programs with names of their own, hence the subshell.
in_image() {
  (
    # shellcheck source=/dev/null # a program of its own, checked as one
    source "$ROOT/lib/healthcheck.sh"
    "$@"
  )
}

# reachable ADDRESS: where to call what is bound to it.
reachable() {
  case $1 in
    0.0.0.0) printf '127.0.0.1' ;;
    ::) printf '::1' ;;
    *) printf '%s' "$1" ;;
  esac
}

# host_port ADDRESS PORT: as one word.
host_port() {
  case $1 in
    *:*) printf '[%s]:%s' "$1" "$2" ;;
    *) printf '%s:%s' "$1" "$2" ;;
  esac
}

# port_answers ADDRESS PORT
port_answers() { within 3 open_port "$1" "$2" 2>/dev/null; }
open_port() { : 3<>"/dev/tcp/$1/$2"; }

# rest_get ADDRESS PORT PATH: the whole answer. HTTP/1.0: closed at its end and never in chunks.
rest_get() {
  {
    printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$3" "$(host_port "$1" "$2")" >&3
    tr -d '\0\r' <&3
  } 3<>"/dev/tcp/$1/$2"
}

# model_states ADDRESS PORT MODEL: "VERSION STATE", newest first, one a line; fails when the server does not tell.
model_states() {
  local answer
  answer=$(within 5 rest_get "$1" "$2" "/v1/models/$(in_image percent_encode "$3")" 2>/dev/null) || return
  [[ ${answer%%$'\n'*} == HTTP/*' 200 '* ]] || return
  printf '%s' "$answer" | tr -d '[:space:]' | grep -oE '"version":"?-?[0-9]+"?,"state":"[A-Z]+"' \
    | sed -E 's/"version":"?(-?[0-9]+)"?,"state":"([A-Z]+)"/\1 \2/'
}

# first_unavailable ADDRESS PORT MODEL...: says which model cannot be called yet, and nothing when all can.
first_unavailable() {
  local address=$1 port=$2 model states
  shift 2
  for model; do
    if ! states=$(model_states "$address" "$port" "$model"); then
      printf '%s: the server does not answer about it yet\n' "$model"
    elif [[ $states != *' AVAILABLE'* ]]; then
      printf '%s: version %s\n' "$model" "${states%%$'\n'*}"
    else
      continue
    fi
    return
  done
}
