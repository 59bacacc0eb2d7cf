# shellcheck shell=bash
# The model repository on disk, for scripts that work without Python; tfserving/repository has the complete rules.

# A version in its usual form; TensorFlow Serving reads the directory's name as a signed 64-bit integer.
is_version() {
  local LC_ALL=C number
  [[ $1 =~ ^0*([0-9]{1,19})$ ]] || return 1
  number=${BASH_REMATCH[1]}
  # shellcheck disable=SC2071 # compared as text, since bash overflows above this number
  [[ ${#number} -lt 19 || ! $number > 9223372036854775807 ]]
}

# version_number TEXT: prints it without leading zeros, which TensorFlow Serving ignores.
version_number() {
  [[ $1 =~ ^0*([0-9]+)$ ]]
  printf '%s' "${BASH_REMATCH[1]}"
}

# list_versions DIRECTORY: prints its versions, ascending, one per line.
list_versions() {
  local child
  for child in "$1"/*/; do
    child=${child%/}
    if is_version "${child##*/}"; then
      version_number "${child##*/}"
      printf '\n'
    fi
  done | sort -nu
}

# version_directory DIRECTORY VERSION: prints its path. Of `01` and `1` the server uses the last by name.
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

# print_export_command: prints the command that creates MODEL_NAME, for messages about a missing one.
print_export_command() {
  printf 'python export_saved_model.py SOURCE --name %s' "$MODEL_NAME"
  ! is_set MODELS_DIR || printf ' --models-dir %s' "$(quoted "$MODELS_DIR")"
}

# resolve_models_dir: checks MODELS_DIR and makes it an absolute path.
resolve_models_dir() {
  [[ $MODELS_DIR != *://* ]] || reject "MODELS_DIR=$(quoted "$MODELS_DIR") is a URI, and a directory is expected; copy" \
    "the models to this machine"
  [[ -d $MODELS_DIR ]] || reject "MODELS_DIR=$(quoted "$MODELS_DIR") is not a directory;" \
    "create it with $(print_export_command), or run bash quickstart.sh for the example models"
  MODELS_DIR=$(absolute_directory "$MODELS_DIR")
}

check_model_directory() {
  local directory=$MODELS_DIR/$MODEL_NAME
  [[ -d $directory ]] || reject "$(quoted "$directory") does not exist; create the model with" \
    "$(print_export_command), or run bash quickstart.sh for the example models"
  [[ -r $directory && -x $directory ]] \
    || reject "$(quoted "$directory") is not readable; chmod -R u+rX it or run as its owner"
  [[ -n $(list_versions "$directory") ]] || reject "$(quoted "$directory") has no version (a directory whose name is" \
    "an integer); create one with $(print_export_command)"
}

check_saved_model() { # DIRECTORY
  [[ -s $1/saved_model.pb || -s $1/saved_model.pbtxt ]] || reject "$(quoted "$1") is not a SavedModel:" \
    "saved_model.pb is missing or empty; export the version again or remove the directory"
}

# find_leaving_link PATH DIRECTORY: prints the first link at or below PATH that is broken, absolute or leads out of
# DIRECTORY, so that it does not work where DIRECTORY is mounted at another path. Hidden files are skipped.
find_leaving_link() {
  local link directory
  directory=$(CDPATH='' cd -P -- "$2" && pwd -P) || return
  while IFS= read -r link; do
    if ! stays_inside "$link" "${directory%/}"; then
      printf '%s' "$link"
      return
    fi
  done < <(
    [[ ! -L $1 ]] || printf '%s\n' "$1"
    find -H "$1" -name '.?*' ! -path "$1" -prune -o -type l -print 2>/dev/null
  )
}

# stays_inside LINK DIRECTORY: DIRECTORY has no links in its path.
stays_inside() {
  local target path
  target=$(readlink "$1") || return
  path=$(dirname -- "$1")/$target
  [[ $target != /* && -e $path ]] || return
  if [[ -d $path ]]; then
    path=$(CDPATH='' cd -P -- "$path" 2>/dev/null && pwd -P) || return
  elif [[ -L $path ]]; then
    stays_inside "$path" "$2"
    return
  else
    path=$(CDPATH='' cd -P -- "$(dirname -- "$path")" 2>/dev/null && pwd -P) || return
  fi
  [[ $path/ == "$2"/* ]]
}

# list_model_files VERSION TYPE: prints the directories (d) or the files (f) of a version, each followed by NUL. A link
# counts as what it points to. Hidden files are not part of a model; tfserving/repository/model_files.py has the same
# rule.
list_model_files() { find -L "$1" -name '.?*' -prune -o -type "$2" -print0; }

# find_outside_file VERSION DIRECTORY: prints the first file of a version that is not in DIRECTORY once links are
# resolved, or that is hidden there; nothing if there is none.
find_outside_file() {
  local path real directory
  directory=$(real_path "$2")
  directory=${directory%/}
  while IFS= read -r -d '' path; do
    [[ -L $path || -d $path ]] || continue
    real=$(real_path "$path")
    if [[ $real != "$directory"/* || ${real#"$directory"} == */.* ]]; then
      printf '%s' "$path"
      return
    fi
  done < <(list_model_files "$1" d && list_model_files "$1" f)
}

# real_path PATH: prints it without links. macOS has no realpath. The x keeps line breaks at the end of a name.
real_path() {
  local path=$1 target parent
  while [[ -L $path && ! -d $path ]]; do
    target=$(readlink "$path" && printf x)
    target=${target%$'\n'x}
    case $target in
      /*) path=$target ;;
      *) path=${path%/*}/$target ;;
    esac
  done
  parent=$path
  [[ -d $path ]] || parent=${path%/*}/
  parent=$(CDPATH='' cd -P -- "$parent" && pwd -P && printf x) || return
  parent=${parent%$'\n'x}
  [[ -d $path ]] || parent=${parent%/}/${path##*/}
  printf '%s' "$parent"
}

# copy_model_files VERSION TARGET: copies the files of a version to TARGET, which does not exist. Links become files.
copy_model_files() {
  local path
  while IFS= read -r -d '' path; do
    mkdir -p -- "$2${path#"$1"}" || return
  done < <(list_model_files "$1" d)
  while IFS= read -r -d '' path; do
    cp -- "$path" "$2${path#"$1"}" || return
  done < <(list_model_files "$1" f)
}

# is_json FILE: no models.config in protobuf text format begins with a bracket.
is_json() {
  local text
  text=$(tr -d "[:space:]" <"$1" | head -c 1) || true # head may close the pipe first
  [[ $text == ['{['] ]]
}
