# shellcheck shell=bash
# What a value must look like. Each check ends the door with exit code 2 and the mend.

# matches TEXT PATTERN: an extended regular expression, in which a-z means a to z whatever the locale is.
matches() {
  local LC_ALL=C
  [[ $1 =~ $2 ]]
}

is_whole_number() { matches "$1" '^[0-9]{1,9}$'; }

# A version's directory in its usual form; TensorFlow Serving reads it as a signed integer of 64 bits.
is_version() {
  local LC_ALL=C number
  [[ $1 =~ ^0*([0-9]{1,19})$ ]] || return 1
  number=${BASH_REMATCH[1]}
  # shellcheck disable=SC2071 # as text: it may be more than bash can count to
  [[ ${#number} -lt 19 || ! $number > 9223372036854775807 ]]
}

# version_number TEXT: without leading zeros, which TensorFlow Serving reads over.
version_number() {
  [[ $1 =~ ^0*([0-9]+)$ ]]
  printf '%s' "${BASH_REMATCH[1]}"
}

# Nothing that the doors are given has a use for control characters, and paths with them break what reads lines.
check_control_characters() {
  local name
  for name in $SETTINGS; do
    case $name in MODEL_VERSIONS | DOCKER_ARGS) continue ;; esac # lists, which may be written on several lines
    [[ ${!name} != *[[:cntrl:]]* ]] || misuse "$name=$(quoted "${!name}") contains a control character; remove it"
  done
}

# One rule with tfserving/repository/names.py, since a name is a directory, a part of a URL and of a command.
check_model_name() { # NAME WHERE
  matches "$1" '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$' \
    || misuse "$2 $(quoted "$1") is no model name: use letters, digits, '_', '-' and '.'," \
      "beginning with a letter, a digit or '_', at most 128 of them"
}

# The grammar of github.com/distribution/reference.
is_image_reference() {
  local path='[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*' label='[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?'
  local port=':[0-9]+' tag='[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}' hex='[0-9a-fA-F]'
  # What has no dot and no port, and is not localhost, is no registry's host but the path's first part.
  local host="($label(\\.$label)+($port)?|localhost($port)?|$label$port|\\[[0-9a-fA-F:]+\\]($port)?)"
  local algorithm='[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*'
  matches "$1" "^($host/)?$path(/$path)*(:$tag)?(@$algorithm:$hex{32,})?\$" || return 1
  ! matches "$1" "^$hex{64}\$" || return 1 # docker takes it for an image's ID
  matches "$1" '^.{1,255}$'
}

check_image_reference() { # VARIABLE
  is_image_reference "${!1}" \
    || misuse "$1=$(quoted "${!1}") is no image reference: use [HOST[:PORT]/]NAME[:TAG], the name in small letters," \
      "digits and single '.', '_' or '-' between them, such as registry.example.com:5000/team/digits:1"
}

check_mode() {
  case $MODE in
    single | multi) ;;
    *) misuse "MODE=$(quoted "$MODE") is unknown; it is single (one model) or multi (those of MODELS_CONFIG)" ;;
  esac
}

check_engine() {
  case $ENGINE in
    auto | docker | embedded) ;;
    *) misuse "ENGINE=$(quoted "$ENGINE") is unknown; it is auto, docker or embedded" ;;
  esac
}

check_container_name() {
  matches "$CONTAINER_NAME" '^[a-zA-Z0-9][a-zA-Z0-9_.-]+$' \
    || misuse "CONTAINER_NAME=$(quoted "$CONTAINER_NAME") is no container name: use two or more letters, digits," \
      "'_', '.' and '-', beginning with a letter or a digit"
}

check_bind_address() {
  local byte='(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
  matches "$BIND_ADDRESS" "^$byte(\\.$byte){3}\$" || matches "$BIND_ADDRESS" '^[0-9a-fA-F]*:[0-9a-fA-F:.]+$' \
    || misuse "BIND_ADDRESS=$(quoted "$BIND_ADDRESS") is no IP address; give one of this machine, such as" \
      "127.0.0.1 (this machine only) or 0.0.0.0 (every network)"
}

check_ports() {
  local name
  for name in GRPC_PORT REST_PORT; do
    { is_whole_number "${!name}" && ((10#${!name} >= 1 && 10#${!name} <= 65535)); } \
      || misuse "$name=$(quoted "${!name}") is no port; give a number from 1 to 65535"
    printf -v "$name" '%d' "$((10#${!name}))"
  done
  [[ $GRPC_PORT != "$REST_PORT" ]] \
    || misuse "GRPC_PORT and REST_PORT are both $GRPC_PORT; each needs a port of its own"
}

# check_seconds VARIABLE: empty, or a whole number, of which leading zeros are dropped.
check_seconds() {
  [[ -n ${!1} ]] || return 0
  matches "${!1}" '^[0-9]{1,5}$' \
    || misuse "$1=$(quoted "${!1}") is no whole number of seconds; give one such as 15"
  printf -v "$1" '%d' "$((10#${!1}))"
}

check_restart_policy() {
  matches "$RESTART_POLICY" '^(no|always|unless-stopped|on-failure(:[0-9]+)?)$' \
    || misuse "RESTART_POLICY=$(quoted "$RESTART_POLICY") is unknown; it is no, always, unless-stopped, on-failure" \
      "or on-failure:N"
}

check_gpu() {
  GPU=${GPU// /}
  [[ -z $GPU ]] || matches "$GPU" '^([0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+)(,([0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+))*$' \
    || misuse "GPU=$(quoted "$GPU") is no GPU; give an index (0), a UUID (GPU-…, see nvidia-smi -L) or a list (0,1)"
}

check_gpu_memory_fraction() {
  [[ -z $GPU_MEMORY_FRACTION ]] || matches "$GPU_MEMORY_FRACTION" '^(1(\.0*)?|0?\.[0-9]*[1-9][0-9]*)$' \
    || misuse "GPU_MEMORY_FRACTION=$(quoted "$GPU_MEMORY_FRACTION") is no fraction; give one above 0 and up to 1," \
      "such as 0.5"
}

check_enable_model_warmup() {
  case $ENABLE_MODEL_WARMUP in
    '' | true | false) ;;
    *) misuse "ENABLE_MODEL_WARMUP=$(quoted "$ENABLE_MODEL_WARMUP") is neither true nor false" ;;
  esac
}

# check_file VARIABLE: empty, or a file that can be read.
check_file() {
  [[ -n ${!1} ]] || return 0
  [[ -f ${!1} ]] || misuse "$1=$(quoted "${!1}"): no such file"
  [[ -r ${!1} ]] || misuse "$1=$(quoted "${!1}") cannot be read; chmod it or run as its owner"
}

# looks_like_json FILE: no models.config in protobuf text format begins with a bracket.
looks_like_json() {
  local text
  text=$(tr -d "[:space:]" <"$1" | head -c 1) || true # tr may find nobody reading
  [[ $text == ['{['] ]]
}
