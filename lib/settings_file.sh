# shellcheck shell=bash
# Settings from a file: --env-file, and those of the last start of CONTAINER_NAME, which restart, update and rollback
# use. Both have a line NAME=VALUE for each variable. Remembered settings also have a line for each server flag.

FILE_FLAGS=() # the server flags of the file

# load_settings FILE: sets the variables of FILE that the user did not set, and FILE_FLAGS.
load_settings() {
  local name line value file=$1 number=0
  FILE_FLAGS=()
  [[ -f $1 && -r $1 ]] || reject "$(quoted "$1") is not a readable file"
  for name in $SETTINGS; do
    is_set "$name" || printf -v "$name" ''
  done
  while IFS= read -r line || [[ -n $line ]]; do
    number=$((number + 1)) line=${line%$'\r'}
    case $line in
      '' | '#'*) ;;
      --*) FILE_FLAGS+=("$line") ;;
      *)
        matches "$line" '^[A-Z_]+=' || reject "$(quoted "$1"):$number is not valid (expected NAME=VALUE)"
        name=${line%%=*} value=${line#*=}
        [[ "$SETTINGS IMAGE_NAME " == *" $name "* ]] \
          || reject "$(quoted "$1"):$number: $name is not a variable of these scripts; --help lists them"
        case $value in \"*\" | \'*\') value=${value:1:${#value}-2} ;; esac
        [[ -n ${!name} ]] || printf -v "$name" '%s' "$value"
        ;;
    esac
  done <"$file"
  # shellcheck source=/dev/null
  source "$ROOT/lib/settings.sh" # the defaults of the others, which can depend on these
}

remembered_file() { embedded_file settings; }

# remember_settings FLAG...: writes the settings of this start, with absolute paths.
remember_settings() {
  local name value file
  file=$(remembered_file)
  create_private "$file.new" || fail "cannot write $(quoted "$file.new")"
  for name in $SETTINGS; do
    case $name in CONTAINER_NAME | RUN_DIR) continue ;; esac # they lead to this file
    is_set "$name" || [[ $name == ENGINE || $name == MODE ]] || continue
    value=${!name//$'\n'/ } # DOCKER_ARGS may span several lines
    case $name in
      MODELS_DIR) value=$(absolute_directory "$value") || continue ;;
      *_FILE | MODELS_CONFIG) value=$(absolute_file "$value") || continue ;;
    esac
    printf '%s=%s\n' "$name" "$value"
  done >>"$file.new"
  [[ $# -eq 0 ]] || printf '%s\n' "$@" >>"$file.new"
  mv -f -- "$file.new" "$file"
}

# remembered NAME: prints the value of NAME at the last start of CONTAINER_NAME; nothing if it was not set.
remembered() { sed -n "s/^$1=//p" "$(remembered_file)" 2>/dev/null || true; }

load_remembered() {
  [[ -e $(remembered_file) ]] || fail "no settings of $CONTAINER_NAME are remembered; start it with" \
    "$(script_command run_tf_serving.sh CONTAINER_NAME RUN_DIR), or set CONTAINER_NAME to a server that was started here"
  load_settings "$(remembered_file)"
}
