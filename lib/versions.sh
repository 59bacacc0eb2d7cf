# shellcheck shell=bash
# A model's versions on disk, for what has to work without Python; tfserving/repository/versions.py knows more.

# versions_of DIRECTORY: its versions, ascending, one a line.
versions_of() {
  local child
  for child in "$1"/*/; do
    child=${child%/}
    if is_version "${child##*/}"; then
      version_number "${child##*/}"
      printf '\n'
    fi
  done | sort -nu
}

# version_directory DIRECTORY VERSION: where that version lies. Of `1` and `01` the server takes the last by name.
version_directory() {
  local child found=''
  for child in "$1"/*/; do
    child=${child%/}
    if is_version "${child##*/}" && [[ $(version_number "${child##*/}") == "$2" ]]; then
      found=$child
    fi
  done
  printf '%s' "$found"
}

# How a model comes to be, for the messages about missing ones.
export_command() { # NAME
  local place=''
  ! chosen MODELS_DIR || place=" --models-dir $(quoted "$MODELS_DIR")"
  printf 'python export_saved_model.py SOURCE --name %s%s' "$1" "$place"
}

# check_model_directory NAME
check_model_directory() {
  local base=$MODELS_DIR/$1
  [[ -d $base ]] || misuse "no model $1: $(quoted "$base") does not exist; make it with" \
    "$(export_command "$1"), or bash quickstart.sh for the examples"
  [[ -r $base && -x $base ]] || misuse "$(quoted "$base") cannot be read; chmod -R u+rX it or run as its owner"
  [[ -n $(versions_of "$base") ]] || misuse "$(quoted "$base") holds no version: a version is a directory whose" \
    "name is an integer; make one with $(export_command "$1")"
}

# check_saved_model DIRECTORY
check_saved_model() {
  [[ -s $1/saved_model.pb ]] \
    || misuse "$(quoted "$1") is no SavedModel: it has no saved_model.pb, or an empty one; export it again or" \
      "remove the directory"
}
