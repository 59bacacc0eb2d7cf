# shellcheck shell=bash
# Checks of settings. Each exits with code 2 and an error message if a value is not valid.

# matches TEXT PATTERN: an extended regular expression, in which a-z means a to z in every locale.
matches() {
  local LC_ALL=C
  [[ $1 =~ $2 ]]
}

# reject_value NAME KIND EXPECTED
reject_value() { reject "$1=$(quoted "${!1}") is not a valid $2 ($3)"; }

# check_choice NAME KIND VALUE...: NAME has one of the values.
check_choice() {
  local name=$1 kind=$2 value list=''
  shift 2
  for value; do
    [[ ${!name} != "$value" ]] || return 0
    [[ -z $value ]] || list+="${list:+, }$value"
  done
  reject_value "$name" "$kind" "$list"
}

check_pattern() { # NAME PATTERN KIND EXPECTED
  matches "${!1}" "$2" || reject_value "$1" "$3" "$4"
}

# shellcheck source=docker/server_config.sh
source "$ROOT/docker/server_config.sh"

# Names that other tools use, and those of our variables that have their meaning.
SIMILAR_VARIABLES='MODEL:MODEL_NAME MODEL_BASE_PATH:MODELS_DIR MODELS:MODELS_DIR MODEL_CONFIG_FILE:MODELS_CONFIG
  CONTAINER:CONTAINER_NAME IMAGE:IMAGE_NAME PORT:GRPC_PORT,REST_PORT REST_API_PORT:REST_PORT HTTP_PORT:REST_PORT
  GPUS:GPU GPU_ID:GPU REPLICA:REPLICAS TIMEOUT:START_TIMEOUT'

# warn_about_similar_variables: warns about variables in the environment that have almost the name of a setting. The
# scripts that this one runs do not repeat it.
warn_about_similar_variables() {
  local name similar
  [[ -z ${TFSERVING_NAMES_CHECKED:-} ]] || return 0
  export TFSERVING_NAMES_CHECKED=yes
  for name in $(compgen -e); do
    [[ -n ${!name:-} ]] || continue
    similar=$(find_similar_setting "$name")
    [[ -z $similar ]] || log "warning: $name=$(quoted "${!name}") has no effect; did you mean ${similar//,/ or }?"
  done
}

# find_similar_setting NAME: prints the settings that the user may have meant, unless NAME or one of them is set.
find_similar_setting() {
  local pair setting
  [[ ${#1} -ge 4 && $SETTINGS != *" $1 "* ]] || return 0
  for pair in $SIMILAR_VARIABLES; do
    [[ ${pair%%:*} == "$1" ]] || continue
    for setting in $(tr , ' ' <<<"${pair#*:}"); do
      ! is_set "$setting" || return 0
    done
    printf '%s' "${pair#*:}"
    return
  done
  # One typing error, and only in long names: variables of other programs must not match.
  [[ ${#1} -ge 8 ]] || return 0
  for setting in $SETTINGS; do
    pair=$((${#setting} - ${#1}))
    [[ ${pair#-} -le 1 && ${setting:0:1} == "${1:0:1}" ]] || continue
    [[ $(count_edits "$1" "$setting") -gt 1 ]] || is_set "$setting" || printf '%s' "$setting"
  done
}

# check_variables: checks what holds for every variable. No setting needs control characters, and paths that contain
# them break code that reads lines.
check_variables() {
  local name
  warn_about_similar_variables
  for name in $SETTINGS; do
    case $name in MODEL_VERSIONS | DOCKER_ARGS) continue ;; esac # lists, which may span several lines
    [[ ${!name} != *[[:cntrl:]]* ]] || reject "$name=$(quoted "${!name}") contains a control character; remove it"
  done
}

# The same rule as tfserving/repository/model_names.py: a model name is part of a path, a URL and a command.
check_model_name() {
  check_pattern MODEL_NAME '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$' 'model name' \
    "at most 128 letters, digits, '_', '-' and '.'; must start with a letter, a digit or '_'"
}

# The grammar of github.com/distribution/reference.
is_image_reference() {
  local path='[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*' label='[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?'
  local port=':[0-9]+' tag='[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}' hex='[0-9a-fA-F]'
  # Without a dot or a port, and other than localhost, the first part belongs to the path.
  local host="($label(\\.$label)+($port)?|localhost($port)?|$label$port|\\[[0-9a-fA-F:]+\\]($port)?)"
  local algorithm='[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*'
  matches "$1" "^($host/)?$path(/$path)*(:$tag)?(@$algorithm:$hex{32,})?\$" || return 1
  ! matches "$1" "^$hex{64}\$" || return 1 # docker reads it as an image ID
  matches "$1" '^.{1,255}$'
}

check_image_reference() { # NAME
  is_set "$1" || is_image_reference "${!1}" || [[ $1 != IMAGE_NAME ]] \
    || reject "MODEL_NAME=$(quoted "$MODEL_NAME") gives no valid default for IMAGE_NAME: ${!1} is not a valid image" \
      "reference; set IMAGE_NAME, such as IMAGE_NAME=tfserving-my-model"
  is_image_reference "${!1}" \
    || reject_value "$1" 'image reference' \
      '[HOST[:PORT]/]NAME[:TAG] in lower case, such as registry.example.com:5000/team/digits:1'
}

# is_base_image REFERENCE: whether it names TF_SERVING_IMAGE or another tag of the official image.
is_base_image() {
  local image=${1#docker.io/} base=${TF_SERVING_IMAGE#docker.io/}
  case $image in tensorflow/serving | tensorflow/serving[:@]*) return ;; esac
  [[ $image == "$base" || $image:latest == "$base" || $image == "$base:latest" ]]
}

check_bind_address() {
  local byte='(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])'
  check_pattern BIND_ADDRESS "^$byte(\\.$byte){3}\$|^[0-9a-fA-F]*:[0-9a-fA-F:.]+\$" 'IP address' \
    '127.0.0.1: this machine only; 0.0.0.0: all networks'
}

# check_port NAME: drops leading zeros.
check_port() {
  { matches "${!1}" '^[0-9]{1,9}$' && ((10#${!1} >= 1 && 10#${!1} <= 65535)); } || reject_value "$1" port 1-65535
  printf -v "$1" '%d' "$((10#${!1}))"
}

check_ports() {
  local name
  for name in GRPC_PORT REST_PORT; do
    check_port "$name"
  done
  [[ $GRPC_PORT != "$REST_PORT" ]] || reject "GRPC_PORT and REST_PORT are both $GRPC_PORT; set them to different ports"
}

reject_used_port() { # PORT USER
  local name=GRPC_PORT
  [[ $1 == "$GRPC_PORT" ]] || name=REST_PORT
  reject "port $1 is in use by $2; stop it, or set another port: $name=$(($1 < 65000 ? $1 + 100 : $1 - 100))"
}

# check_container_settings: variables for docker run.
check_container_settings() {
  check_pattern RESTART_POLICY '^(no|always|unless-stopped|on-failure(:[0-9]+)?)$' 'restart policy' \
    'no, always, unless-stopped, on-failure, on-failure:N'
  check_limits
}

# check_seconds NAME: empty or a whole number; drops leading zeros.
check_seconds() {
  [[ -n ${!1} ]] || return 0
  check_pattern "$1" '^[0-9]{1,5}$' 'number of seconds' 0-99999
  printf -v "$1" '%d' "$((10#${!1}))"
}

check_gpu() {
  local gpu='([0-9]+|(GPU|MIG)-[A-Za-z0-9/-]+)'
  GPU=${GPU// /}
  check_pattern GPU "^($gpu(,$gpu)*)?\$" GPU 'an index such as 0, a UUID from nvidia-smi -L, or a list such as 0,1'
  check_pattern GPU_MEMORY_FRACTION '^(1(\.0*)?|0?\.[0-9]*[1-9][0-9]*)?$' fraction 'above 0, up to 1'
}

check_xla() { check_choice XLA value '' true auto false; }

# check_limits: the memory and the CPUs of a container.
check_limits() {
  check_pattern MEMORY '^([1-9][0-9]{0,17}[bkmgBKMG]?)?$' 'memory size' \
    'an integer with an optional unit b, k, m or g, such as 4g'
  check_pattern CPUS '^([0-9]*[1-9][0-9]*(\.[0-9]*)?|[0-9]*\.[0-9]*[1-9][0-9]*)?$' 'number of CPUs' \
    'a decimal number above 0, such as 1.5'
}

# check_file NAME: empty or a readable file of a size that a config can have. A FIFO or a device could block or never
# end.
check_file() {
  [[ -n ${!1} ]] || return 0
  [[ -f ${!1} ]] || reject "$1=$(quoted "${!1}") is not a regular file"
  [[ -r ${!1} ]] || reject "$1=$(quoted "${!1}") is not readable for user $(id -un); run as its owner"
  # In blocks of 512 bytes. MAX_BYTES in tfserving/repository/config_text.py is the same limit.
  [[ -z $(find -L "${!1}" -prune -size +32768 2>/dev/null) ]] \
    || reject "$1=$(quoted "${!1}") is too large for a config (at most 16 MiB)"
}
