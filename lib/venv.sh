# shellcheck shell=bash
# The virtual environment that quickstart.sh and run_tests.sh share. Sourced after common.sh.

: "${VENV:=$ROOT/.venv}"
[[ $VENV == /* ]] || VENV=$PWD/$VENV

# The minor versions of Python 3 for which TensorFlow of requirements.txt has wheels.
PYTHON_OLDEST=10
PYTHON_NEWEST=13

# make_venv: sees to it that VENV has what requirements.txt names, and sets PYTHON to its Python. Quick when it has.
make_venv() {
  local wanted installed
  wanted=$(cksum <"$ROOT/requirements.txt")
  installed=$(cat "$VENV/.requirements" 2>/dev/null || true)
  PYTHON=$VENV/bin/python
  if ! "$PYTHON" -c '' 2>/dev/null || half_made; then
    begin_venv
  elif [[ $installed == "$wanted" ]]; then
    return
  fi
  note "installing requirements.txt into $VENV: about 2 GB, some minutes"
  install_requirements
  printf '%s\n' "$wanted" >"$VENV/.requirements"
  rm -f "$VENV/.unfinished"
  note "$VENV is ready"
}

half_made() {
  [[ -e $VENV/.unfinished || ($VENV == "$ROOT/.venv" && ! -e $VENV/.requirements) ]]
}

# Afresh rather than mended: an install that was broken off can look complete to pip. What is not ours stays.
begin_venv() {
  local base
  if [[ -e $VENV && ! -e $VENV/.requirements ]] && ! half_made; then
    misuse "VENV=$(quoted "$VENV") exists and is no virtual environment; remove it or name another"
  fi
  base=$(base_python)
  note "making the virtual environment $VENV with $("$base" --version)"
  if ! mkdir -p -- "$VENV" || ! touch -- "$VENV/.unfinished"; then
    fail "$VENV cannot be written; name another place with VENV"
  fi
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name .unfinished -exec rm -rf {} +
  "$base" -m venv "$VENV" || fail "python -m venv failed; its message is above"
}

install_requirements() {
  local quiet=(--quiet --progress-bar off)
  [[ ! -t 2 ]] || quiet=() # a terminal sees pip's own progress
  "$PYTHON" -m pip install --disable-pip-version-check --no-input ${quiet[@]+"${quiet[@]}"} \
    --requirement "$ROOT/requirements.txt" >&2 \
    || fail "pip could not install requirements.txt; its message is above"
}

# base_python: the path of a Python that can make the environment.
base_python() {
  local minor name path names=(python3 python) found=''
  local probe="import sys, venv, ensurepip
sys.exit(not (3, $PYTHON_OLDEST) <= sys.version_info[:2] <= (3, $PYTHON_NEWEST))"
  for ((minor = PYTHON_NEWEST; minor >= PYTHON_OLDEST; minor--)); do
    names+=("python3.$minor")
  done
  for name in "${names[@]}"; do
    path=$(command -v "$name") || continue
    if "$path" -c "$probe" 2>/dev/null; then
      printf '%s\n' "$path"
      return
    fi
    found+="${found:+, }$path ($("$path" --version 2>&1 || true))"
  done
  fail "needs Python 3.$PYTHON_OLDEST to 3.$PYTHON_NEWEST with venv and ensurepip, found ${found:-none};" \
    "on Debian and Ubuntu: apt-get install python3 python3-venv"
}
