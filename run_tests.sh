#!/usr/bin/env bash
#
# Makes a virtual environment with requirements.txt, then runs every test. Tests that need Docker are skipped,
# with a word, where no engine answers.
#
# Usage: bash run_tests.sh [PYTEST_ARGUMENT]...
#
#   bash run_tests.sh tests/wire           one folder
#   bash run_tests.sh -m "not docker"      without one kind (tensorflow, conformance, docker)
set -Eeuo pipefail

DOOR=${BASH_SOURCE[0]}
ROOT=$(CDPATH='' cd -- "$(dirname -- "$DOOR")" && pwd)

: "${VENV:=}"                     # the virtual environment; made when it is not there; empty: .venv
: "${TFSERVING_TEST_IMAGE:=}"     # the base image of the docker tests; empty: TF_SERVING_IMAGE of lib/settings.sh
: "${TFSERVING_REQUIRE_DOCKER:=}" # 1: docker tests fail where they would be skipped

# shellcheck source=lib/common.sh
source "$ROOT/lib/common.sh"
# shellcheck source=lib/venv.sh
source "$ROOT/lib/venv.sh"

main() {
  case ${1:-} in
    -h | --help)
      usage
      return
      ;;
  esac
  make_venv
  export TFSERVING_TEST_IMAGE TFSERVING_REQUIRE_DOCKER
  # The scripts under test take the same environment, and python of it is the one that README's commands mean.
  export VENV PATH="$VENV/bin:$PATH"
  cd "$ROOT"
  exec "$PYTHON" -m pytest "$@"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  main "$@"
fi
