# shellcheck shell=bash
# What every door needs: messages, help, quoting, a time limit, Python; and the settings with their checks.
# Sourced by the doors, which set DOOR to their own path and ROOT to their directory.

# shellcheck source=lib/settings.sh
source "$ROOT/lib/settings.sh"
# shellcheck source=lib/checks.sh
source "$ROOT/lib/checks.sh"

# What a door says goes to stderr, what it was asked for to stdout.
note() { printf '%s: %s\n' "${DOOR##*/}" "$*" >&2; }

# misuse MESSAGE: what was asked cannot be right, or not here; the message says the mend.
misuse() {
  note "error: $*"
  exit 2
}

# fail MESSAGE: what was asked was right and did not come off.
fail() {
  note "error: $*"
  exit 1
}

# usage: the header comment of the door, then the variables of its block with their defaults.
usage() {
  local line pattern='^: "\$\{([A-Z_]+):=(.*)\}" *# (.*)$'
  {
    read -r line # the shebang, and the blank line of comment under it
    read -r line
    while IFS= read -r line && [[ $line == '#'* ]]; do
      line=${line#\#}
      printf '%s\n' "${line# }"
    done
    printf '\nVariables, to be edited at the top of this script or given in the environment:\n'
    while IFS= read -r line; do
      [[ $line =~ $pattern ]] || continue
      printf '  %-36s  %s\n' "${BASH_REMATCH[1]}${BASH_REMATCH[2]:+=${BASH_REMATCH[2]}}" "${BASH_REMATCH[3]}"
      default_of "${BASH_REMATCH[1]}"
    done
  } <"$DOOR"
}

# default_of NAME: a line of help that tells what settings.sh says.
default_of() {
  local line text='' pattern="^ *(.*\) )?setting $1 ([^ ]+)"
  while IFS= read -r line; do
    [[ $line =~ $pattern ]] || continue
    text+="${text:+ or }${BASH_REMATCH[2]//[\"\']/}"
  done <"$ROOT/lib/settings.sh"
  [[ -z $text ]] || printf '  %-36s  default: %s\n' '' "${text/\$ROOT\//}"
}

# quoted TEXT: as one word of a shell's command line.
quoted() {
  local LC_ALL=C apostrophe="'\\''"
  case $1 in
    *[[:cntrl:]]*) printf '%q' "$1" ;;
    '' | *[!A-Za-z0-9_./:=,@%+-]*) printf "'%s'" "${1//\'/$apostrophe}" ;;
    *) printf '%s' "$1" ;;
  esac
}

# print_command WORD...: on one line that a shell would read back as these words.
print_command() {
  local word line=''
  for word; do
    line+="${line:+ }$(quoted "$word")"
  done
  printf '%s\n' "$line"
}

# door_command DOOR NAME...: the command that calls another door with the values chosen here for NAME...
door_command() {
  local door=$1 name line=''
  shift
  for name; do
    ! chosen "$name" || line+="$name=$(quoted "${!name}") "
  done
  [[ $PWD == "$ROOT" ]] || door=$ROOT/$door
  printf '%sbash %s' "$line" "$(quoted "$door")"
}

# split_words TEXT: sets WORDS to its words, with quotes and backslashes as in a shell and nothing expanded. Fails at
# a quote without its partner.
split_words() {
  local text=$1 char word='' begun='' quote='' i
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
  [[ -z $begun ]] || WORDS+=("$word")
  [[ -z $quote ]]
}

# within SECONDS COMMAND...: its exit code, 124 when it was ended for taking longer. Not every system has timeout.
within() {
  local ticks=$(($1 * 50)) process
  shift
  "$@" &
  process=$!
  while kill -0 "$process" 2>/dev/null; do
    if ((ticks-- == 0)); then
      kill -KILL "$process" 2>/dev/null || true
      wait "$process" 2>/dev/null || true
      return 124
    fi
    sleep 0.02
  done
  wait "$process"
}

# absolute_directory PATH: from the root on and without `..`, symbolic links kept, so that whoever is given it sees
# where they point later.
absolute_directory() { (CDPATH='' cd -- "$1" && pwd); }

# absolute_file PATH: the same for a file.
absolute_file() {
  local directory
  directory=$(absolute_directory "$(dirname -- "$1")") || return
  printf '%s/%s' "${directory%/}" "${1##*/}"
}

# find_python MODULE...: sets PYTHON to one that has the modules: that of the virtual environment, else on PATH.
find_python() {
  have_python "$@" || fail "no Python >= 3.10 with $*, neither in .venv nor on PATH; run: bash quickstart.sh, or" \
    "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
}

have_python() {
  local candidate probe='import importlib.util, sys
sys.exit(sys.version_info < (3, 10) or not all(map(importlib.util.find_spec, sys.argv[1:])))'
  for candidate in "${VENV:-$ROOT/.venv}/bin/python" python3 python; do
    if PYTHON=$(command -v -- "$candidate") && "$PYTHON" -c "$probe" "$@" >/dev/null 2>&1; then
      return
    fi
  done
  return 1
}

# repository ARG...: python -m tfserving.repository of this checkout.
repository() { PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m tfserving.repository "$@"; }
