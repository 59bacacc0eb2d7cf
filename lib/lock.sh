# shellcheck shell=bash
# A lock for CONTAINER_NAME that ends with the process that holds it. macOS has no flock.

LOCK_FILE='' # our own file while we hold the lock, or try to

# process_start_time PROCESS: prints when it started, as one word; process ids are reused.
process_start_time() {
  local text fields
  if [[ -r /proc/$1/stat ]]; then
    text=$(cat "/proc/$1/stat" 2>/dev/null) || return
    read -r -a fields <<<"${text##*) }" # the name in parentheses may contain spaces
    [[ ${fields[0]} == Z ]] || printf '%s' "${fields[19]}"
  else
    ps -o lstart= -p "$1" 2>/dev/null | tr -cd '[:alnum:]'
  fi
}

# Each process has its own file, NAME.lock@PROCESS@START_TIME, so none has to take over the file of a dead one. Who
# creates a file and then sees no other holds the lock. Of two that see each other, the higher process id withdraws.
# `@` cannot be part of a CONTAINER_NAME.

# list_lock_holders: prints the other live processes that have a file, one per line; removes the files of dead ones.
list_lock_holders() {
  local file process
  for file in "$(embedded_file lock)"@*; do
    [[ -e $file && $file != "$LOCK_FILE" ]] || continue
    process=${file##*/} process=${process#*@} process=${process%@*}
    if [[ ${file##*@} == "$(process_start_time "$process")" ]]; then
      printf '%s\n' "$process"
    else
      rm -f -- "$file"
    fi
  done
}

# acquire_lock: fails if another process keeps the lock.
acquire_lock() {
  local deadline=$((SECONDS + 3)) process others
  LOCK_FILE=$(embedded_file lock)@$$@$(process_start_time $$)
  while :; do
    create_private "$LOCK_FILE" || fail "cannot create $(quoted "$LOCK_FILE")"
    others=$(list_lock_holders)
    [[ -n $others ]] || return 0
    for process in $others; do
      [[ $process -gt $$ ]] || rm -f -- "$LOCK_FILE"
    done
    if [[ $SECONDS -ge $deadline ]]; then
      release_lock
      fail "another run_tf_serving.sh (process ${others%%$'\n'*}) is starting or stopping $CONTAINER_NAME;" \
        "wait until it has finished"
    fi
    sleep 0.1
  done
}

release_lock() {
  [[ -z $LOCK_FILE ]] || rm -f -- "$LOCK_FILE"
  LOCK_FILE=''
}
