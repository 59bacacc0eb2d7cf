# shellcheck shell=bash
# Reads the configuration and the status of a model server: checks and parses its flags, parses its models.config,
# queries its REST API. The entrypoint and the health check source this file inside the image, lib/ on the host; it
# runs on bash 3.2.

# The lexical grammar of protobuf's text format, one token a match; a comment is one token.
QUOTED='"([^"\\]|\\.)*"'
TOKEN="#.*|$QUOTED|${QUOTED//\"/\'}|[A-Za-z0-9_.+-]+|[][{}<>:;,/]"

# The flags of tensorflow_model_server 2.20.0, which ignores all others. A boolean flag needs no value.
BOOLEAN_FLAGS='enable_batching allow_version_labels_for_unavailable_models enable_per_model_batching_parameters
  enable_model_warmup enable_grpc_healthcheck_service enable_profiler enable_serialization_as_tensor_content
  enable_signature_method_name_check flush_filesystem_caches prefer_tflite_model
  remove_unused_fields_from_bundle_metagraph rest_api_enable_cors_support skip_initialize_tpu use_alts_credentials
  version xla_cpu_compilation_enabled xla_gpu_compilation_enabled'
VALUE_FLAGS='port grpc_socket_path grpc_channel_arguments grpc_max_threads rest_api_port rest_api_num_threads
  rest_api_timeout_in_ms batching_parameters_file model_config_file model_config_file_poll_wait_seconds model_name
  model_base_path num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros
  file_system_poll_wait_seconds tensorflow_session_parallelism tensorflow_session_config_file
  tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism ssl_config_file platform_config_file
  per_process_gpu_memory_fraction saved_model_tags num_request_iterations_for_warmup monitoring_config_file
  num_tflite_pools num_tflite_interpreters_per_pool thread_pool_factory_config_file mixed_precision'
# The flags that only the embedded server has.
EMBEDDED_FLAGS='host models_dir grpc_front xla_auto_jit access_log max_connections idle_timeout_in_ms head_timeout_in_ms
  rest_api_body_timeout_in_ms grpc_max_concurrent_streams max_queued_requests max_queued_bytes grpc_max_message_fields
  max_filled_bytes rest_api_max_body_bytes rest_api_max_json_values'

# A failed load is retried for 50 s: long enough for most copies, short enough for a restart. By default,
# tensorflow_model_server waits a minute between attempts, and reports a broken version only after five.
# shellcheck disable=SC2034 # for the scripts that source this file
LOAD_RETRY_FLAGS=(--max_num_load_retries=5 --load_retry_interval_micros=10000000)

# is_word WORD LIST: whether WORD is one of the words of LIST.
is_word() {
  local word
  for word in $2; do
    [[ $word != "$1" ]] || return 0
  done
  return 1
}

# explain_ignored_flag FLAG: prints why tensorflow_model_server would ignore it; nothing if it would not.
explain_ignored_flag() {
  local name=${1#--} similar
  name=${name%%=*}
  if [[ $1 == --* ]]; then
    ! is_word "$name" "$BOOLEAN_FLAGS" || return 0
    if is_word "$name" "$VALUE_FLAGS $EMBEDDED_FLAGS"; then
      [[ $1 == *=* ]] || printf '%s has no value (--%s=VALUE)' "$1" "$name"
      return
    fi
  fi
  name=$(printf '%s' "${name#-}" | tr 'A-Z-' 'a-z_')
  # shellcheck disable=SC2086 # lists of words
  similar=$(find_similar "$name" $BOOLEAN_FLAGS $VALUE_FLAGS $EMBEDDED_FLAGS)
  printf '%s is not a flag of tensorflow_model_server, which ignores it%s' "${1%%=*}" \
    "${similar:+; did you mean --$similar?}"
}

# find_similar WORD CANDIDATE...: prints the candidate with the fewest typing errors, if there are few. One for every
# four characters is enough for typical mistakes.
find_similar() {
  local word=$1 candidate distance best='' least=$((${#1} / 4 + 1))
  shift
  for candidate; do
    distance=$((${#candidate} - ${#word}))
    ((${distance#-} < least)) || continue
    distance=$(count_edits "$word" "$candidate")
    ((distance >= least)) || best=$candidate least=$distance
  done
  printf '%s' "$best"
}

# count_edits WORD WORD: prints the Levenshtein distance.
count_edits() {
  local i j cost diagonal above row=()
  for ((j = 0; j <= ${#2}; j++)); do
    row[j]=$j
  done
  for ((i = 1; i <= ${#1}; i++)); do
    diagonal=${row[0]} row[0]=$i
    for ((j = 1; j <= ${#2}; j++)); do
      above=${row[j]} cost=1
      [[ ${1:i-1:1} != "${2:j-1:1}" ]] || cost=0
      row[j]=$((diagonal + cost))
      ((row[j] <= above)) || row[j]=$((above + 1))
      ((row[j] <= row[j - 1])) || row[j]=$((row[j - 1] + 1))
      diagonal=$above
    done
  done
  printf '%s' "${row[${#2}]}"
}

# get_state_dir: prints where the entrypoint writes what the health check reads. Containers of one pod, or with the
# host's IPC, share /dev/shm, the one place that is writable under --read-only; the mount namespace tells them apart.
get_state_dir() {
  printf '/dev/shm/tfserving-%s' "$(stat -Lc %i /proc/self/ns/mnt 2>/dev/null || true)"
}

# get_flag NAME ARG...: prints the value of the last --NAME=VALUE, which is the one that the server uses.
get_flag() {
  local name=$1 arg value=''
  shift
  for arg; do
    [[ $arg != "--$name="* ]] || value=${arg#*=}
  done
  printf '%s\n' "$value"
}

# connection_age_flag AGE GRACE FLAG...: prints the flag that closes connections after AGE seconds, and calls that still
# run on them after GRACE more. It contains the channel arguments of the FLAGs, which take precedence. Prints nothing if
# AGE is empty or 0. Without GRACE, calls are not closed.
connection_age_flag() {
  local age=${1:-0} grace=$2 given pair arguments=''
  shift 2
  [[ $age -gt 0 ]] || return 0
  given=$(get_flag grpc_channel_arguments "$@")
  for pair in "grpc.max_connection_age_ms=$((age * 1000))" \
    ${grace:+"grpc.max_connection_age_grace_ms=$((grace * 1000))"}; do
    [[ ",$given" == *",${pair%%=*}="* ]] || arguments+="$pair,"
  done
  arguments+=$given
  printf '%s' "--grpc_channel_arguments=${arguments%,}"
}

# unquote LITERAL: prints the text of a string literal; %b does not know \" and \'.
unquote() {
  local text=${1:1:${#1}-2}
  text=${text//\\\"/\"}
  text=${text//\\\'/\'}
  printf '%b' "$text"
}

# list_model_names FILE: prints the model names of a ModelServerConfig in text format, each followed by NUL.
list_model_names() {
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
        name+=$(unquote "$token") # adjacent literals are one string
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
  done < <(grep -oE -- "$TOKEN" <"$1")
}

# percent_encode TEXT: prints it as one segment of a URL, byte by byte.
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

# get_model_status ADDRESS PORT MODEL: prints the HTTP response, without CR. With HTTP/1.0 the server closes the
# connection and never sends chunks.
get_model_status() {
  {
    printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$(percent_encode "$3")" >&3
    tr -d '\0\r' <&3
  } 3<>"/dev/tcp/$1/$2"
}
