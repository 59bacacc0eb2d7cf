#!/usr/bin/env bash
#
# Builds a base image for the docker tests on a machine that cannot pull tensorflow/serving: the embedded server on a
# minimal Debian, with the behavior of tensorflow_model_server where the two differ (tensorflow_model_server.py).
#
# Usage: tests/integration/standin/build.sh TAG
#
# Needs root, a Debian machine with mmdebstrap or debootstrap, a Docker daemon, and apt and pip with access to Debian's
# packages and PyPI. Debian and the Python packages stay in a separate image, which is rebuilt only if this file or
# docker/embedded/requirements.txt changes.
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
DIRECTORY=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)
ROOT=$(CDPATH='' cd -- "$DIRECTORY/../../.." && pwd)

: "${PYTHON:=python3}" # a Python with pip, of any version

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"

# With pip, so that docker/embedded/build.sh finds everything installed.
REQUIREMENTS=$ROOT/docker/embedded/requirements.txt
# Not needed in a server: C++ headers, and dependencies of TensorFlow that it does not import.
UNUSED=(tensorflow/include clang tensorboard tensorboard_data_server bin)

# debian_mirror SUITE: prints the mirror that apt uses on this machine.
debian_mirror() {
  # shellcheck disable=SC2016 # apt expands them
  apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 'Label: Debian' \
    | awk -v suite="$1" '$1 == suite && $2 == "main" { print $3; exit }'
}

# install_debian DIRECTORY: installs a minimal Debian with Python.
install_debian() {
  local suite mirror
  suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  mirror=$(debian_mirror "$suite")
  [[ -n $mirror ]] || fail "apt has no Debian mirror for $suite; run apt-get update on a Debian machine"
  if command -v mmdebstrap >/dev/null; then
    mmdebstrap --quiet --variant=minbase --include=python3 "$suite" "$1" "$mirror"
  elif command -v debootstrap >/dev/null; then
    debootstrap --variant=minbase --include=python3 "$suite" "$1" "$mirror"
  else
    fail "mmdebstrap and debootstrap are not installed; run apt-get install mmdebstrap"
  fi
}

# install_packages DIRECTORY: installs the Python packages into that Debian; its own Python compiles them.
install_packages() {
  local version target path
  version=$(chroot "$1" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  target=/usr/local/lib/python$version/dist-packages
  "$PYTHON" -m pip install --quiet --no-compile --target "$1$target" --python-version "$version" \
    --only-binary=:all: --requirement "$REQUIREMENTS"
  "$PYTHON" -m pip install --quiet --no-compile --target "$1$target" pip
  for path in "${UNUSED[@]}"; do
    rm -rf "${1:?}$target/$path"
  done
  chroot "$1" python3 -m compileall -q -j 0 "$target" || true # some packages contain files with a newer syntax
}

build_base() { # TAG
  local directory
  directory=$(mktemp -d)
  # shellcheck disable=SC2064 # expands now
  trap "rm -rf --one-file-system '$directory'" EXIT
  chmod 755 "$directory"
  install_debian "$directory"
  install_packages "$directory"
  rm -rf "$directory"/{usr/share/{doc,man,locale,info},var/cache/apt,var/lib/apt/lists}/*
  mkdir "$directory/models"
  tar -C "$directory" -c . | docker import - "$1" >/dev/null
}

list_images() { docker images --quiet --filter "reference=$1" --filter "reference=$1-embedded"; } # TAG

# remove_old_images TAG BASE_TAG IMAGE_ID...: removes those images of an earlier run (2 GB each) that have no tag any
# more and that no container uses, and the other base images.
remove_old_images() {
  local current base=$2 image
  current=$(list_images "$1")
  for image in "${@:3}"; do
    grep -qxF "$image" <<<"$current" || docker rmi "$image" >/dev/null 2>&1 || true
  done
  docker images --format '{{.Repository}}:{{.Tag}}' --filter 'reference=tfserving-standin-base' | grep -vxF "$base" \
    | xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
}

main() {
  local base previous
  case ${1:-} in
    '') reject "TAG is missing; pass the tag of the image to build, such as tfserving-standin" ;;
    -*) handle_option "$1" ;;
  esac
  base=tfserving-standin-base:$(cat "$SCRIPT" "$REQUIREMENTS" /etc/os-release \
    | sha256sum | cut -c -16)
  if [[ -z $(docker images --quiet "$base") ]]; then
    build_base "$base"
  fi
  previous=$(list_images "$1")
  PYTHON_IMAGE=$base IMAGE_NAME=$1-embedded bash "$ROOT/docker/embedded/build.sh"
  docker build --quiet --tag "$1" --build-arg "BASE_IMAGE=$base" --build-arg "EMBEDDED_IMAGE=$1-embedded" \
    "$DIRECTORY" >/dev/null
  # shellcheck disable=SC2086 # one word an image
  remove_old_images "$1" "$base" $previous
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
