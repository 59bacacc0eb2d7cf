#!/usr/bin/env bash
#
# Makes a base image for the docker tests on a machine that cannot pull tensorflow/serving: the image of
# deploy/embedded, which takes the official one's place, on a Debian made here.
#
# Usage: tests/integration/standin/build.sh TAG
#
# Needs root, a Debian machine with mmdebstrap or debootstrap, a Docker engine, and Debian's packages and PyPI
# as apt and pip are configured here. Debian and the Python packages are kept as an image of their own, which is
# made again only when this file or requirements.txt changes.
#
# From the environment:
#   PYTHON     a Python with pip, of any version
set -Eeuo pipefail

: "${PYTHON:=python3}"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../../.." && pwd)
# What the embedded server needs, and pip, which finds all of it there when deploy/embedded/build.sh asks for it.
# TensorFlow asks for more than that, which is weeded out below.
# shellcheck source=deploy/embedded/build.sh
read -r -a PACKAGES < <(source "$ROOT/deploy/embedded/build.sh" && printf '%s pip\n' "$PACKAGES")
# Of no use in a server: C++ headers, and packages that TensorFlow names but does not import by itself.
WEEDS=(tensorflow/include clang tensorboard tensorboard_data_server bin)

die() { # STATUS MESSAGE
  printf 'standin: error: %s\n' "$2" >&2
  exit "$1"
}

usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# What apt is configured to use here, so that no file of ours names a mirror.
debian_mirror() { # SUITE
  # shellcheck disable=SC2016 # apt expands them
  apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 'Label: Debian' \
    | awk -v suite="$1" '$1 == suite && $2 == "main" { print $3; exit }'
}

# bootstrap DIRECTORY: a small Debian with Python.
bootstrap() {
  local suite mirror
  suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
  mirror=$(debian_mirror "$suite")
  [[ -n $mirror ]] || die 1 "apt knows no Debian mirror with $suite; run apt-get update on a Debian machine"
  if command -v mmdebstrap >/dev/null; then
    mmdebstrap --quiet --variant=minbase --include=python3 "$suite" "$1" "$mirror"
  elif command -v debootstrap >/dev/null; then
    debootstrap --variant=minbase --include=python3 "$suite" "$1" "$mirror"
  else
    die 1 "neither mmdebstrap nor debootstrap is here; apt-get install mmdebstrap"
  fi
}

# install_packages DIRECTORY: the Python packages into the Debian there, compiled by its own Python.
install_packages() {
  local version target weed
  version=$(chroot "$1" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  target=/usr/local/lib/python$version/dist-packages
  "$PYTHON" -m pip install --quiet --no-compile --target "$1$target" --python-version "$version" \
    --only-binary=:all: --constraint "$ROOT/requirements.txt" "${PACKAGES[@]}"
  for weed in "${WEEDS[@]}"; do
    rm -rf "${1:?}$target/$weed"
  done
  chroot "$1" python3 -m compileall -q -j 0 "$target" || true # some packages ship files of a newer syntax
}

make_base() { # TAG
  local directory
  directory=$(mktemp -d)
  # shellcheck disable=SC2064 # the directory of now
  trap "rm -rf --one-file-system '$directory'" EXIT
  chmod 755 "$directory"
  bootstrap "$directory"
  install_packages "$directory"
  rm -rf "$directory"/{usr/share/{doc,man,locale,info},var/cache/apt,var/lib/apt/lists}/*
  mkdir "$directory/models"
  tar -C "$directory" -c . | docker import - "$1" >/dev/null
}

# The embedded server as it is in the working tree, over the base.
make_image() { # BASE TAG
  PYTHON_IMAGE=$1 IMAGE_NAME=$2 DOCKER_ARGS=--quiet bash "$ROOT/deploy/embedded/build.sh" >/dev/null
}

# What an earlier run left under the same names; 2 GB each, so gone unless a container needs it.
remove_leftovers() { # IMAGE_ID... BASE_TAG
  local base=${*: -1}
  docker rmi "${@:1:$#-1}" >/dev/null 2>&1 || true
  docker images --format '{{.Repository}}:{{.Tag}}' --filter 'reference=tfserving-standin-base' | grep -vxF "$base" \
    | xargs --no-run-if-empty docker rmi >/dev/null 2>&1 || true
}

main() {
  local base before
  case ${1:-} in
    -h | --help)
      usage
      return
      ;;
    '' | -*) die 2 "give the tag of the image to make, for example: build.sh tfserving-standin" ;;
  esac
  base=tfserving-standin-base:$(cat "${BASH_SOURCE[0]}" "$ROOT/requirements.txt" /etc/os-release \
    <(printf '%s' "${PACKAGES[*]}") \
    | sha256sum | cut -c -16)
  if [[ -z $(docker images --quiet "$base") ]]; then
    make_base "$base"
  fi
  before=$(docker images --quiet "$1")
  make_image "$base" "$1"
  [[ $before == "$(docker images --quiet "$1")" ]] || remove_leftovers ${before:+"$before"} "$base"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
