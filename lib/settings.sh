# shellcheck shell=bash
# The default of every variable, each in this one place. The doors source this after their own block of
# settings, so a value written there or given in the environment wins over the one here. A value changed here
# holds for every door.

CHOSEN=' '   # the variables that the user gave a value, one blank around each
SETTINGS=' ' # all of them

# setting NAME DEFAULT: gives NAME its default unless the user chose a value.
setting() {
  SETTINGS+="$1 "
  if [[ -n ${!1:-} ]]; then
    CHOSEN+="$1 "
  else
    printf -v "$1" '%s' "$2"
  fi
}

# chosen NAME: whether the user did. What was not chosen is not passed on.
chosen() { [[ $CHOSEN == *" $1 "* ]]; }

setting MODE single
setting ENGINE auto

setting MODEL_NAME digits
setting MODEL_VERSIONS ''
setting MODELS_DIR "$ROOT/models"
setting MODELS_CONFIG "$MODELS_DIR/models.config"

setting TF_SERVING_IMAGE tensorflow/serving:2.20.0
setting DOCKER_ARGS ''

setting CONTAINER_NAME tfserving
setting BIND_ADDRESS 127.0.0.1
setting GRPC_PORT 8500
setting REST_PORT 8501
setting RESTART_POLICY unless-stopped
setting DRAIN_SECONDS 0
setting START_TIMEOUT 120

setting GPU ''
setting GPU_MEMORY_FRACTION ''
setting MODEL_CONFIG_FILE_POLL_WAIT_SECONDS ''
setting ENABLE_MODEL_WARMUP ''
setting BATCHING_PARAMETERS_FILE ''
setting MONITORING_CONFIG_FILE ''
setting SSL_CONFIG_FILE ''

# The default that depends on another variable; called once MODE is certain.
setting_of_image() {
  local model # docker takes no capitals in a repository's name
  model=$(printf '%s' "$MODEL_NAME" | tr '[:upper:]' '[:lower:]')
  # shellcheck disable=SC2153 # setting gives MODE its value
  case $MODE in
    multi) setting IMAGE_NAME tfserving-ensemble ;;
    *) setting IMAGE_NAME "tfserving-$model" ;;
  esac
}
