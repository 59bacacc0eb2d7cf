# shellcheck shell=bash
# The GPUs of this machine, as nvidia-smi lists them.

# find_gpus: sets FOUND_GPUS to the lines of nvidia-smi -L; or sets REASON and returns 1 if there are none.
find_gpus() {
  local code=0
  FOUND_GPUS='' REASON='nvidia-smi is not installed'
  command -v nvidia-smi >/dev/null || return
  FOUND_GPUS=$(run_with_timeout 10 nvidia-smi -L 2>&1) || code=$?
  REASON="nvidia-smi -L reports: ${FOUND_GPUS##*$'\n'}"
  [[ $code -ne 124 ]] || REASON='nvidia-smi -L did not respond within 10 s'
  [[ $code -eq 0 && $FOUND_GPUS == *'GPU '* ]]
}

# check_gpus_exist: rejects a GPU that this machine does not have: TensorFlow would use the CPU without an error.
check_gpus_exist() {
  local gpu names
  [[ -n $GPU ]] || return 0
  # docker reports a GPU that the machine of a remote daemon does not have.
  [[ $ENGINE != docker ]] || ! is_docker_remote || return 0
  if ! find_gpus; then
    # The embedded server finds GPUs without nvidia-smi, and does not start if it lacks one.
    [[ $ENGINE == docker ]] || command -v nvidia-smi >/dev/null || return 0
    reject "GPU=$GPU, but this machine has no GPU: $REASON; install NVIDIA's driver, or leave GPU empty"
  fi
  names=$(sed -n 's/^GPU \([0-9]*\): \(.*\) (UUID.*/\1 \2/p' <<<"$FOUND_GPUS")
  for gpu in ${GPU//,/ }; do
    case $gpu in
      *[!0-9]*) [[ $FOUND_GPUS == *"(UUID: $gpu"* ]] ;;
      *) matches $'\n'"$FOUND_GPUS" $'\n'"GPU $((10#$gpu)):" ;;
    esac || reject "GPU=$GPU names $gpu, which is not a GPU of this machine (found ${names//$'\n'/, }); set it to an" \
      "index or a UUID that nvidia-smi -L prints"
  done
}

# xla_device: prints gpu if the server will have a GPU, else cpu.
xla_device() {
  if [[ -n $GPU ]] || { [[ $ENGINE == embedded ]] && find_gpus; }; then
    printf gpu
  else
    printf cpu
  fi
}

# xla_environment gpu|cpu: prints the value of TF_XLA_FLAGS for XLA=auto. Without the second flag, TensorFlow clusters
# only operations on GPUs.
xla_environment() {
  printf -- --tf_xla_auto_jit=2
  [[ $1 == gpu ]] || printf ' --tf_xla_cpu_global_jit'
}
