#!/usr/bin/env bash
#
# From a fresh clone to a prediction: creates a virtual environment, trains and exports the example models, starts a
# server, classifies handwritten digits over gRPC and over REST, and stops the server.
#
# Usage: bash quickstart.sh [--help]
#
# Creates .venv, the models of models/models.config, quickstart.png and, with docker, an image. Existing files are
# reused, so a second run is fast.
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)

# Write a value after := or set the variable in the environment, which takes precedence. The defaults of empty
# variables are in lib/settings.sh, for all scripts.
: "${VENV:=}"             # the virtual environment
: "${ENGINE:=}"           # docker; embedded: without Docker; auto: docker if it runs and the image is available
: "${TF_SERVING_IMAGE:=}" # docker: the base image, pulled if missing
: "${IMAGE_NAME:=}"       # docker: the name of the image to build
: "${PULL_TIMEOUT:=}"     # docker: the time limit of the pull, in seconds
: "${MODELS_DIR:=}"       # the directory for the models
: "${RUN_DIR:=}"          # the directory of the server's log and, if you set it, of quickstart.png
: "${GRPC_PORT:=}"        # the port for gRPC; if you do not set it and it is in use, a free one is chosen
: "${REST_PORT:=}"        # the port for REST, likewise

MODE=quickstart
# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/python.sh
source "$ROOT/lib/python.sh"
# shellcheck source=lib/server_status.sh
source "$ROOT/lib/server_status.sh"
# shellcheck source=lib/docker.sh
source "$ROOT/lib/docker.sh"

STEPS=5
STARTED='' # whether a server may be running

print_step() { # NUMBER TEXT
  printf '\n[%s/%s] %s\n' "$1" "$STEPS" "$2"
}

check_quickstart_settings() {
  set_image_name
  MODE=multi
  check_variables
  check_choice ENGINE engine auto docker embedded
  check_ports
  check_image_reference TF_SERVING_IMAGE
  check_image_reference IMAGE_NAME
  check_seconds PULL_TIMEOUT
  [[ $MODELS_DIR == /* ]] || MODELS_DIR=$PWD/$MODELS_DIR
}

# export_settings: passes the settings on to the other scripts. The server is for this run and this machine only.
export_settings() {
  local name
  for name in TF_SERVING_IMAGE MODELS_DIR RUN_DIR; do
    ! is_set "$name" || export "${name?}"
  done
  export VENV GRPC_PORT REST_PORT
  export CONTAINER_NAME=tfserving-quickstart-$$ BIND_ADDRESS=127.0.0.1
  # Its default is not that of build_ensemble.sh, so that an image of the user keeps its name.
  export IMAGE_NAME
  SET_BY_USER+='IMAGE_NAME '
  # Its default is in MODELS_DIR, where there is no config.
  if is_set MODELS_DIR && ! is_set MODELS_CONFIG; then
    export MODELS_CONFIG=$ROOT/models/models.config
    SET_BY_USER+='MODELS_CONFIG '
  fi
}

make_models() {
  local directory=$MODELS_DIR
  # Shorter in the output, unless it would become an option.
  [[ $directory != "$ROOT"/[!-]* ]] || directory=${directory#"$ROOT"/}
  (cd "$ROOT" && "$PYTHON" -m examples.make_models --models-dir "$directory") \
    || fail "cannot create the example models; the error is above"
}

# ensure_image: pulls TF_SERVING_IMAGE if it is missing; sets REASON and fails if it cannot.
ensure_image() {
  local code=0
  ! docker image inspect "$TF_SERVING_IMAGE" >/dev/null 2>&1 || return 0
  printf '  pulling %s (time limit %s s)\n' "$TF_SERVING_IMAGE" "$PULL_TIMEOUT"
  run_with_timeout "$PULL_TIMEOUT" docker pull "$TF_SERVING_IMAGE" >&2 || code=$?
  REASON="cannot pull $TF_SERVING_IMAGE; docker's output is above"
  [[ $code -ne 124 ]] || REASON="cannot pull $TF_SERVING_IMAGE within PULL_TIMEOUT=$PULL_TIMEOUT s"
  return "$code"
}

choose_engine() {
  local reason='set by ENGINE'
  case $ENGINE in
    docker)
      if ! probe_docker || ! ensure_image; then
        fail "ENGINE=docker, but $REASON; fix that, or set ENGINE=embedded"
      fi
      ;;
    auto)
      if probe_docker && ensure_image; then
        ENGINE=docker reason="docker $ENGINE_VERSION is running, $TF_SERVING_IMAGE is available"
      else
        ENGINE=embedded reason=$REASON
      fi
      ;;
  esac
  export ENGINE
  printf '  %s (%s)\n' "$ENGINE" "$reason"
}

choose_ports() {
  local name free
  read -r -a free < <("$PYTHON" -c "$FIND_FREE_PORTS")
  for name in GRPC_PORT REST_PORT; do
    if ! is_set "$name" && is_port_open "$BIND_ADDRESS" "${!name}"; then
      printf '  port %s is in use; using %s=%s instead\n' "${!name}" "$name" "${free[0]}"
      printf -v "$name" '%s' "${free[0]}"
      free=("${free[@]:1}")
    fi
  done
}

FIND_FREE_PORTS='import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(each.getsockname()[1] for each in sockets))'

start_server() {
  choose_ports
  if [[ $ENGINE == docker ]]; then
    export RESTART_POLICY=no # the container must not outlive this script
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

classify_digits() {
  local png=quickstart.png
  if is_set RUN_DIR || [[ ! -w $ROOT ]]; then
    create_run_dir
    png=$RUN_DIR/$png
  fi
  (
    cd "$ROOT"
    [[ $png != "$RUN_DIR"/* ]] || umask 077
    "$PYTHON" -m examples.classify_digits --rpc "$BIND_ADDRESS:$GRPC_PORT" --rest "$BIND_ADDRESS:$REST_PORT" \
      --png "$png"
  )
}

print_next_steps() {
  local run
  case $ENGINE in
    docker) run=$(script_command run_tf_serving.sh IMAGE_NAME MODELS_DIR MODELS_CONFIG) ;;
    *) run="ENGINE=embedded $(script_command run_tf_serving.sh RUN_DIR MODELS_DIR MODELS_CONFIG)" ;;
  esac
  cat <<END

Next:
  source $(quoted "${VENV#"$ROOT"/}/bin/activate")
  $run multi
      starts the same server and keeps it running; $(script_command run_tf_serving.sh) stop stops it
  tfserving call --model digits --show
      shows the inputs and outputs of the model; --help shows how to call it
  tfserving export --help
      shows how to export your own model
END
}

main() {
  local argument
  for argument; do
    handle_option "$argument"
  done
  check_quickstart_settings
  trap 'stop_server >/dev/null 2>&1 || true' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  print_step 1 "virtual environment $VENV"
  make_venv
  print_step 2 "models in $MODELS_DIR"
  export_settings
  make_models
  print_step 3 'engine'
  choose_engine
  print_step 4 'server'
  start_server
  print_step 5 'handwritten digits'
  classify_digits
  printf '\n'
  stop_server
  print_next_steps
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
