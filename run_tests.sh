#!/usr/bin/env bash
#
# Creates a virtual environment from requirements.txt, then runs all tests. Tests that need Docker are skipped, with
# the reason, if no daemon responds.
#
# Usage: bash run_tests.sh [PYTEST_ARGUMENT]...
#
#   bash run_tests.sh tests/wire           one folder
#   bash run_tests.sh -m "not docker"      without the tests of one marker (tensorflow, conformance, docker,
#                                          soak, fuzz)
[ -n "${BASH_VERSION:-}" ] || { echo "$0: error: this script needs bash; run bash $0" >&2 && exit 2; }
set -Eeuo pipefail +o posix

SCRIPT=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$SCRIPT")" && pwd)

: "${VENV:=}"                     # the virtual environment
: "${TFSERVING_TEST_IMAGE:=}"     # the base image of the docker tests; empty: TF_SERVING_IMAGE of lib/settings.sh
: "${TFSERVING_REQUIRE_DOCKER:=}" # 1: docker tests fail instead of being skipped

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/python.sh
source "$ROOT/lib/python.sh"

main() {
  case ${1:-} in -h | --help) handle_option "$1" ;; esac
  make_venv
  export TFSERVING_TEST_IMAGE TFSERVING_REQUIRE_DOCKER
  # The scripts under test use the same environment, and so do the commands of the documentation.
  export VENV PATH="$VENV/bin:$PATH"
  cd "$ROOT"
  exec "$PYTHON" -m pytest "$@"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
