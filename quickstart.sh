#!/usr/bin/env bash
#
# From a fresh clone to an answered request: installs what is needed into a virtual environment, trains and exports
# the example models, starts a server, lets it read handwritten digits over gRPC and over HTTP, and stops it.
#
# Usage: bash quickstart.sh [--help]
#
# Makes .venv, the models that models/models.config names, quickstart.png and, with docker, an image; what is there
# is kept, so a second run is quick.
set -Eeuo pipefail

DOOR=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$DOOR")" && pwd)

# Write a value after := or give the variable in the environment, which wins. What is left empty has its default
# in lib/settings.sh, where a value holds for every script.
: "${VENV:=}"             # the virtual environment; empty: .venv
: "${ENGINE:=}"           # docker; embedded: without Docker; auto: docker where it answers and has the image
: "${TF_SERVING_IMAGE:=}" # docker: the image to build on, pulled when it is not there
: "${PULL_TIMEOUT:=300}"  # docker: how many seconds pulling it may take
: "${MODELS_DIR:=}"       # where the models go
: "${GRPC_PORT:=}"        # the port for gRPC; when it is not chosen and in use, a free one is taken
: "${REST_PORT:=}"        # the port for HTTP, likewise

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/venv.sh
source "$ROOT/lib/venv.sh"
# shellcheck source=lib/rest.sh
source "$ROOT/lib/rest.sh"
# shellcheck source=lib/docker.sh
source "$ROOT/lib/docker.sh"

STEPS=5
STARTED='' # whether there may be a server to stop

step() { # NUMBER TEXT
  printf '\n[%s/%s] %s\n' "$1" "$STEPS" "$2"
}

parse_arguments() {
  case ${1:-} in
    '') ;;
    -h | --help)
      usage
      exit
      ;;
    *) misuse "unknown argument $(quoted "$1"); --help shows the usage (values are given as variables)" ;;
  esac
}

check_settings() {
  MODE=multi
  setting_of_image
  check_control_characters
  check_engine
  check_ports
  check_image_reference TF_SERVING_IMAGE
  check_seconds PULL_TIMEOUT
  [[ $MODELS_DIR == /* ]] || MODELS_DIR=$PWD/$MODELS_DIR
}

# What the other doors are to know; the demo has a container of its own and is for this machine only.
export_settings() {
  local name
  for name in TF_SERVING_IMAGE MODELS_DIR; do
    ! chosen "$name" || export "${name?}"
  done
  export VENV GRPC_PORT REST_PORT
  export CONTAINER_NAME=tfserving-quickstart-$$ BIND_ADDRESS=127.0.0.1
  # It would be looked for beside the models.
  if chosen MODELS_DIR && ! chosen MODELS_CONFIG; then
    export MODELS_CONFIG=$ROOT/models/models.config
    CHOSEN+='MODELS_CONFIG '
  fi
}

make_models() {
  local directory=$MODELS_DIR
  [[ $directory != "$ROOT"/* ]] || directory=${directory#"$ROOT"/} # shorter to read
  (cd "$ROOT" && "$PYTHON" -m examples.make_models --models-dir "$directory") \
    || fail "the models could not be made; the message is above"
}

# have_image: whether TF_SERVING_IMAGE is here, after pulling it if need be; else sets WHY_NOT.
have_image() {
  local code=0
  ! docker image inspect "$TF_SERVING_IMAGE" >/dev/null 2>&1 || return 0
  printf '  pulling %s, which may take %s s\n' "$TF_SERVING_IMAGE" "$PULL_TIMEOUT"
  within "$PULL_TIMEOUT" docker pull "$TF_SERVING_IMAGE" >&2 || code=$?
  WHY_NOT="$TF_SERVING_IMAGE could not be pulled; docker's message is above"
  [[ $code -ne 124 ]] || WHY_NOT="$TF_SERVING_IMAGE could not be pulled within PULL_TIMEOUT=$PULL_TIMEOUT s"
  return "$code"
}

choose_engine() {
  local why='as ENGINE says'
  case $ENGINE in
    docker)
      if ! docker_answers || ! have_image; then
        fail "ENGINE=docker, but $WHY_NOT; mend it, or give ENGINE=embedded"
      fi
      ;;
    auto)
      if docker_answers && have_image; then
        ENGINE=docker why="docker $ENGINE_VERSION answers and $TF_SERVING_IMAGE is here"
      else
        ENGINE=embedded why="since $WHY_NOT"
      fi
      ;;
  esac
  export ENGINE
  printf '  %s: %s\n' "$ENGINE" "$why"
}

choose_ports() {
  local name free
  read -r -a free < <("$PYTHON" -c "$FREE_PORTS")
  for name in GRPC_PORT REST_PORT; do
    if ! chosen "$name" && port_answers "$BIND_ADDRESS" "${!name}"; then
      printf '  port %s is in use: %s=%s instead\n' "${!name}" "$name" "${free[0]}"
      printf -v "$name" '%s' "${free[0]}"
      free=("${free[@]:1}")
    fi
  done
}

FREE_PORTS='import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in sockets))'

start_server() {
  choose_ports
  if [[ $ENGINE == docker ]]; then
    export RESTART_POLICY=no # it is to end with this script
    bash "$ROOT/build_ensemble.sh"
  fi
  STARTED=yes
  bash "$ROOT/run_tf_serving.sh" multi
}

stop_server() {
  [[ -n $STARTED ]] || return 0
  bash "$ROOT/run_tf_serving.sh" stop
  STARTED=''
}

classify() {
  (
    cd "$ROOT"
    "$PYTHON" -m examples.classify_digits --rpc "$BIND_ADDRESS:$GRPC_PORT" --rest "$BIND_ADDRESS:$REST_PORT" \
      --png quickstart.png
  )
}

next_steps() {
  local run
  run="$(door_command run_tf_serving.sh IMAGE_NAME MODELS_DIR MODELS_CONFIG) multi"
  [[ $ENGINE == docker ]] || run="ENGINE=embedded $run"
  cat <<END

Next:
  source $(quoted "${VENV#"$ROOT"/}/bin/activate")
  $run
      starts the same server again, to stay; $(door_command run_tf_serving.sh) stop ends it
  python tf_rpc_client.py --show
      shows what it takes and gives; --help tells how to ask
  python export_saved_model.py --help
      makes a version of your own model
END
}

main() {
  parse_arguments "$@"
  check_settings
  trap 'stop_server >/dev/null 2>&1 || true' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  step 1 "virtual environment $VENV"
  make_venv
  step 2 "models in $MODELS_DIR"
  export_settings
  make_models
  step 3 'engine'
  choose_engine
  step 4 'server'
  start_server
  step 5 'handwritten digits'
  classify
  printf '\n'
  stop_server
  next_steps
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
