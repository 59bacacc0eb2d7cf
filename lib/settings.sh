# shellcheck shell=bash
# The default of every variable. Scripts source this file after their own block of variables, so a value that is set
# there or in the environment takes precedence. A value that you change here applies to every script.
# The image has its own defaults, in Dockerfile and docker/healthcheck.sh: this file is not part of it.

SET_BY_USER=' ' # the names of the variables that the user set, with a space around each
SETTINGS=' '    # all names

# setting NAME DEFAULT: gives NAME its default unless the user set it.
setting() {
  SETTINGS+="$1 "
  if [[ -n ${!1:-} ]]; then
    SET_BY_USER+="$1 "
    # No tool may take a path for an option.
    case $1 in
      *_DIR | *_FILE | MODELS_CONFIG | VENV) [[ ${!1} != -* ]] || printf -v "$1" './%s' "${!1}" ;;
    esac
  else
    printf -v "$1" '%s' "$2"
  fi
}

# Only what the user set is passed on to docker or to another script.
is_set() { [[ $SET_BY_USER == *" $1 "* ]]; }

setting MODE single
setting ENGINE auto

setting MODEL_NAME digits
setting MODEL_VERSIONS ''
setting MODELS_DIR "$ROOT/models"
setting MODELS_CONFIG "$MODELS_DIR/models.config"

setting TF_SERVING_IMAGE tensorflow/serving:2.20.0
setting DOCKER_ARGS ''
setting VERBOSE ''
setting HEALTHCHECK_INTERVAL ''
setting HEALTHCHECK_START_PERIOD ''
setting PYTHON_IMAGE python:3.11-slim-bookworm
setting PULL_TIMEOUT 300
setting VENV "$ROOT/.venv"

setting CONTAINER_NAME tfserving
setting BIND_ADDRESS 127.0.0.1
setting GRPC_PORT 8500
setting REST_PORT 8501
setting RESTART_POLICY unless-stopped
setting MEMORY ''
setting CPUS ''
setting DRAIN_SECONDS 0
setting MAX_CONNECTION_AGE_SECONDS 0
setting MAX_CONNECTION_AGE_GRACE_SECONDS ''
setting START_TIMEOUT 120
setting RUN_DIR "$ROOT/.run"

setting GPU ''
setting GPU_MEMORY_FRACTION ''
setting XLA ''
setting REPLICAS ''
setting REPLICAS_PER_GPU ''
setting MODEL_CONFIG_FILE_POLL_WAIT_SECONDS ''
setting ENABLE_MODEL_WARMUP ''
setting BATCHING_PARAMETERS_FILE ''
setting MONITORING_CONFIG_FILE ''
setting SSL_CONFIG_FILE ''

# A checkout may be read-only.
if ! is_set RUN_DIR && [[ ! -w $ROOT || (-e $ROOT/.run && ! (-d $ROOT/.run && -w $ROOT/.run)) ]]; then
  RUN_DIR=${XDG_STATE_HOME:-${HOME:-/var/tmp}/.local/state}/tfserving
fi
[[ $RUN_DIR == /* ]] || RUN_DIR=$PWD/$RUN_DIR

# set_image_name: gives IMAGE_NAME its default, which depends on MODE; call it once MODE is known.
set_image_name() {
  # shellcheck disable=SC2153 # setting assigns MODE
  case $MODE in
    single) setting IMAGE_NAME "tfserving-$MODEL_NAME" ;;
    multi) setting IMAGE_NAME tfserving-ensemble ;;
    embedded) setting IMAGE_NAME tfserving-embedded ;;
    quickstart) setting IMAGE_NAME tfserving-quickstart ;;
  esac
  # docker allows no capitals in a repository name
  is_set IMAGE_NAME || IMAGE_NAME=$(printf '%s' "$IMAGE_NAME" | tr '[:upper:]' '[:lower:]')
}
