# shellcheck shell=bash
# The flags of tensorflow_model_server: those of the command line, and those of the settings.

# check_server_flags: rejects flags that the server would ignore, and those whose values the script must know.
check_server_flags() {
  local flag name problem
  for flag in ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}; do
    case ${flag%%=*} in
      --port | -port) name=GRPC_PORT ;;
      --rest_api_port | -rest_api_port) name=REST_PORT ;;
      --model_name | -model_name) name=MODEL_NAME ;;
      --model_config_file | -model_config_file) name=MODELS_CONFIG ;;
      --model_base_path | -model_base_path | --models_dir) name=MODELS_DIR ;;
      --host) name=BIND_ADDRESS ;;
      -*)
        problem=$(explain_ignored_flag "$flag")
        [[ $problem != *'ignores it' ]] || problem+='; docs/compatibility.md lists the flags'
        [[ -z $problem ]] || reject "$problem"
        continue
        ;;
      *) reject "$(quoted "$flag") is not a valid server flag (--NAME=VALUE, one word)" ;;
    esac
    reject "${flag%%=*} conflicts with a variable of this script; set $name=$(quoted "${flag#*=}") instead"
  done
}

# log_embedded_flags: notes the flags that have an effect only in the embedded server.
log_embedded_flags() {
  local flag name
  for flag in ${SERVER_FLAGS[@]+"${SERVER_FLAGS[@]}"}; do
    name=${flag#--}
    ! is_word "${name%%=*}" "$EMBEDDED_FLAGS" || log "note: tensorflow_model_server ignores ${flag%%=*}, a flag of the" \
      "embedded server"
  done
}

# add_setting_flags ADD_FILE: adds the server flags of the user's settings to FLAGS; ADD_FILE NAME FLAG adds a file.
add_setting_flags() {
  [[ $MODE == single || -z $MODEL_CONFIG_FILE_POLL_WAIT_SECONDS ]] \
    || FLAGS+=("--model_config_file_poll_wait_seconds=$MODEL_CONFIG_FILE_POLL_WAIT_SECONDS")
  [[ -z $ENABLE_MODEL_WARMUP ]] || FLAGS+=("--enable_model_warmup=$ENABLE_MODEL_WARMUP")
  [[ -z $GPU_MEMORY_FRACTION ]] || FLAGS+=("--per_process_gpu_memory_fraction=$GPU_MEMORY_FRACTION")
  case $XLA in
    true | auto) FLAGS+=("--xla_$(xla_device)_compilation_enabled=true") ;; # the one for GPUs enables XLA on CPUs too
  esac
  [[ -z $BATCHING_PARAMETERS_FILE ]] || FLAGS+=(--enable_batching=true)
  "$1" BATCHING_PARAMETERS_FILE batching_parameters_file
  "$1" MONITORING_CONFIG_FILE monitoring_config_file
  "$1" SSL_CONFIG_FILE ssl_config_file
}
