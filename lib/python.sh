# shellcheck shell=bash
# The Python that the scripts use: find one, or create the virtual environment. Sourced after common.sh.

[[ $VENV == /* ]] || VENV=$PWD/$VENV

# TensorFlow in requirements.txt has wheels for these minor versions of Python 3.
PYTHON_OLDEST=10
PYTHON_NEWEST=13

# require_python MODULE...: find_python, or fails.
require_python() {
  find_python "$@" || fail "no Python >= 3.10 with $* in $VENV or on PATH; run bash quickstart.sh, or" \
    "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"
}

# find_python MODULE...: sets PYTHON to one that has the modules, from the virtual environment or from PATH; returns 1
# if there is none.
find_python() {
  local candidate probe='import importlib.util, sys
sys.exit(sys.version_info < (3, 10) or not all(map(importlib.util.find_spec, sys.argv[1:])))'
  for candidate in "$VENV/bin/python" python3 python; do
    if PYTHON=$(command -v -- "$candidate") && "$PYTHON" -c "$probe" "$@" >/dev/null 2>&1; then
      return
    fi
  done
  return 1
}

# run_tfserving ARG...: runs the tfserving command of this checkout.
run_tfserving() { PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}" "$PYTHON" -m tfserving "$@"; }

# make_venv: creates VENV or updates it to requirements.txt, and sets PYTHON to its Python. Fast if nothing changed.
make_venv() {
  local checksum
  checksum=$(cksum <"$ROOT/requirements.txt")
  PYTHON=$VENV/bin/python
  if ! "$PYTHON" -c '' 2>/dev/null || is_incomplete; then
    create_venv
  elif [[ $(cat "$VENV/.requirements" 2>/dev/null) == "$checksum" ]]; then
    install_command
    return
  fi
  log "installing requirements.txt into $VENV (about 2 GB, takes a few minutes)"
  install_requirements
  install_command
  printf '%s\n' "$checksum" >"$VENV/.requirements"
  rm -f "$VENV/.unfinished"
  log "$VENV is ready"
}

is_incomplete() {
  [[ -e $VENV/.unfinished || ($VENV == "$ROOT/.venv" && ! -e $VENV/.requirements) ]]
}

# Starts from scratch, since pip can take an interrupted installation for a complete one.
create_venv() {
  local base
  if [[ -e $VENV && ! -e $VENV/.requirements ]] && ! is_incomplete; then
    reject "VENV=$(quoted "$VENV") exists and is not a virtual environment; remove it or set VENV to another path"
  fi
  base=$(find_base_python)
  log "creating the virtual environment $VENV with $("$base" --version)"
  if ! mkdir -p -- "$VENV" || ! touch -- "$VENV/.unfinished"; then
    fail "$VENV is not writable; set VENV to another path"
  fi
  find "$VENV" -mindepth 1 -maxdepth 1 ! -name .unfinished -exec rm -rf {} +
  "$base" -m venv "$VENV" || fail "python -m venv failed; its output is above"
}

install_requirements() {
  local quiet=(--quiet --progress-bar off)
  [[ ! -t 2 ]] || quiet=() # on a terminal, pip shows its progress
  "$PYTHON" -m pip install --disable-pip-version-check --no-input ${quiet[@]+"${quiet[@]}"} \
    --requirement "$ROOT/requirements.txt" >&2 \
    || fail "pip install failed; its output is above"
}

# install_command: puts a tfserving command that runs this checkout into VENV. An editable install would need the
# network, write into the checkout, and be reinstalled whenever two checkouts share VENV. A command that pip
# installed stays.
install_command() {
  local file=$VENV/bin/tfserving mark='# Runs the checkout of quickstart.sh.' text current
  text=$(
    cat <<END
#!/bin/sh
$mark
exec env PYTHONPATH=$(quoted "$ROOT")"\${PYTHONPATH:+:\$PYTHONPATH}" PYTHONSAFEPATH=1 \\
  $(quoted "$PYTHON") -m tfserving "\$@"
END
  )
  current=$(cat "$file" 2>/dev/null) || current=$mark
  [[ $current == *"$mark"* && $current != "$text" ]] || return 0
  { printf '%s\n' "$text" >"$file" && chmod +x "$file"; } 2>/dev/null \
    || log "$file is not writable; use python -m tfserving in $ROOT instead"
}

# find_base_python: prints the path of a Python that can create the environment.
find_base_python() {
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
  fail "no Python 3.$PYTHON_OLDEST to 3.$PYTHON_NEWEST with venv and ensurepip (found ${found:-none});" \
    "on Debian and Ubuntu: apt-get install python3 python3-venv"
}
