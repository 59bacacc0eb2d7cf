# shellcheck shell=bash
# Messages, help, quoting and time limits for every script, and the settings with their checks.
# A script sets SCRIPT to its own path and ROOT to the checkout, then sources this file.

# bash warns about a locale that is not installed each time a function sets LC_ALL, and so does each bash that starts.
# shellcheck disable=SC2269 # the assignment warns
[[ -z ${LC_ALL:-} || -z $( (LC_ALL=$LC_ALL) 2>&1) ]] || unset LC_ALL

# shellcheck source=lib/settings.sh
source "$ROOT/lib/settings.sh"
# shellcheck source=lib/checks.sh
source "$ROOT/lib/checks.sh"

# Messages go to stderr, results to stdout.
# A script sets LOG_PREFIX where messages of several servers mix.
log() { printf '%s: %s%s\n' "${SCRIPT##*/}" "${LOG_PREFIX:-}" "$*" >&2; }

# reject MESSAGE: the input is not valid, or not valid here.
reject() {
  log "error: $*"
  exit 2
}

# fail MESSAGE: the input is valid, and the operation failed.
fail() {
  log "error: $*"
  exit 1
}

# handle_option ARG: every script has --help; rejects all other arguments.
handle_option() {
  case $1 in
    -h | --help)
      print_help
      exit
      ;;
    *) reject "unknown argument $(quoted "$1"); --help shows the usage (set variables to change the defaults)" ;;
  esac
}

# print_help: prints the header comment of the script, then the variables of its block with their defaults.
print_help() {
  local line pattern='^: "\$\{([A-Z_]+):=(.*)\}" *# (.*)$'
  {
    read -r line # the shebang and an empty comment line
    read -r line
    while IFS= read -r line && [[ $line == '#'* ]]; do
      line=${line#\#}
      printf '%s\n' "${line# }"
    done
    printf '\nVariables (edit them at the top of this script or set them in the environment):\n'
    while IFS= read -r line; do
      [[ $line =~ $pattern ]] || continue
      printf '  %-36s  %s\n' "${BASH_REMATCH[1]}${BASH_REMATCH[2]:+=${BASH_REMATCH[2]}}" "${BASH_REMATCH[3]}"
      [[ -n ${BASH_REMATCH[2]} ]] || print_default "${BASH_REMATCH[1]}"
    done
  } <"$SCRIPT"
}

# print_default NAME: prints a line of help with the default from settings.sh, if it has one. A default that depends on
# MODE is printed for the MODE that the script or the user set, or for both modes of a server.
print_default() {
  local line default text='' modes='single multi' pattern="^ *(([a-z]+)\) )?setting $1 ([^ ]+)"
  ! is_set MODE || modes=$MODE
  while IFS= read -r line; do
    [[ $line =~ $pattern && " $modes " == *" ${BASH_REMATCH[2]:-${modes%% *}} "* ]] || continue
    default=${BASH_REMATCH[3]//[\"\'\$]/}
    [[ -z $default ]] || text+="${text:+ or }${default#ROOT/}"
  done <"$ROOT/lib/settings.sh"
  [[ -z $text ]] || printf '  %-36s  default: %s\n' '' "$text"
}

# quoted TEXT: prints it as one word of a shell command.
quoted() {
  local LC_ALL=C apostrophe="'\\''"
  case $1 in
    *[[:cntrl:]]*) printf '%q' "$1" ;;
    '' | *[!A-Za-z0-9_./:=,@%+-]*) printf "'%s'" "${1//\'/$apostrophe}" ;;
    *) printf '%s' "$1" ;;
  esac
}

# print_command WORD...: prints one line that a shell reads as these words.
print_command() {
  local word line=''
  for word; do
    line+="${line:+ }$(quoted "$word")"
  done
  printf '%s\n' "$line"
}

# script_command SCRIPT NAME...: prints the command that runs another script with those of the variables NAME that
# the user set.
script_command() {
  local script=$1 name line=''
  shift
  for name; do
    ! is_set "$name" || line+="$name=$(quoted "${!name}") "
  done
  [[ $PWD == "$ROOT" ]] || script=$ROOT/$script
  printf '%sbash %s' "$line" "$(quoted "$script")"
}

# split_docker_args: sets WORDS to the words of DOCKER_ARGS. Quotes and backslashes work as in a shell; nothing is
# expanded.
split_docker_args() {
  local text=$DOCKER_ARGS char word='' begun='' quote='' i
  WORDS=()
  for ((i = 0; i < ${#text}; i++)); do
    char=${text:i:1}
    case $quote$char in
      \'\' | \"\") quote='' ;;
      \'? | \"[!\\]) word+=$char ;;
      \' | \") quote=$char begun=yes ;;
      \\ | \"\\)
        i=$((i + 1))
        word+=${text:i:1} begun=yes
        ;;
      [[:space:]])
        [[ -z $begun ]] || WORDS+=("$word")
        word='' begun=''
        ;;
      *) word+=$char begun=yes ;;
    esac
  done
  [[ -z $quote ]] || reject "DOCKER_ARGS=$(quoted "$DOCKER_ARGS") has an unclosed quote"
  [[ -z $begun ]] || WORDS+=("$word")
}

# run_with_timeout SECONDS COMMAND...: returns the command's exit code, or 124 after killing it. macOS has no timeout.
run_with_timeout() {
  local ticks=$(($1 * 50)) deadline=$((SECONDS + $1)) process
  shift
  "$@" &
  process=$!
  while kill -0 "$process" 2>/dev/null; do
    if ((ticks-- <= 0 || SECONDS > deadline)); then
      disown "$process" # bash reports nothing, and we do not wait for it
      kill_tree "$process"
      return 124
    fi
    sleep 0.02
  done
  wait "$process"
}

# kill_tree PROCESS: kills it and its descendants. One that survived would keep the pipe of a $(...) open.
kill_tree() {
  local child children
  children=$(list_children "$1") || children=''
  kill -KILL "$1" 2>/dev/null || true
  for child in $children; do
    kill_tree "$child"
  done
}

list_children() { # PROCESS
  cat "/proc/$1/task/$1/children" 2>/dev/null || ps -A -o ppid= -o pid= | awk -v parent="$1" '$1 == parent { print $2 }'
}

# create_run_dir: creates RUN_DIR for this user only.
create_run_dir() {
  (umask 077 && mkdir -p -- "$RUN_DIR") || fail "RUN_DIR=$(quoted "$RUN_DIR"), for the state of servers, cannot be" \
    "created; set RUN_DIR to another directory"
  # The modes of a directory that the user chose are the user's.
  is_set RUN_DIR || [[ ! -O $RUN_DIR ]] || chmod 700 "$RUN_DIR"
  check_run_dir
}

# check_run_dir: the scripts run what the files in RUN_DIR contain, so other users must not be able to write there.
check_run_dir() {
  [[ ! -d $RUN_DIR || -z $(find -H "$RUN_DIR" -prune -perm -002) ]] \
    || reject "RUN_DIR=$(quoted "$RUN_DIR") is writable for every user, who could change what this script runs; set" \
      "RUN_DIR to another directory"
}

# create_private FILE: an empty file, new or not, that only this user can read.
create_private() { (umask 077 && : >"$1") && chmod 600 "$1"; }

# absolute_directory PATH: prints it from the root and without `..`. It keeps symbolic links, which may point
# elsewhere later.
absolute_directory() { (CDPATH='' cd -- "$1" && pwd); }

# absolute_file PATH: the same for a file.
absolute_file() {
  local directory
  directory=$(absolute_directory "$(dirname -- "$1")") || return
  printf '%s/%s' "${directory%/}" "${1##*/}"
}
