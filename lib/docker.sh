# shellcheck shell=bash
# Queries to the Docker daemon, each with a time limit.

# docker_within SECONDS ARG...: runs docker with a time limit. A daemon or a container can hang.
docker_within() {
  local seconds=$1
  shift
  run_with_timeout "$seconds" docker "$@"
}

# query_docker ARG...: the same for a command that only takes long if the daemon hangs.
query_docker() { docker_within 10 "$@"; }

# is_docker_remote: whether the daemon runs on another machine, according to its address.
is_docker_remote() {
  local address=${DOCKER_HOST:-}
  [[ -n $address ]] || address=$(query_docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) \
    || address=''
  case $address in
    '' | unix:* | npipe:*) return 1 ;;
  esac
}

# probe_docker: sets ENGINE_VERSION and LOG_DRIVER if a Docker daemon responds; else sets REASON and DOCKER_FIX, and
# returns 1. NO_DOCKER tells whether docker is not installed or no daemon runs, so that nothing can run in it.
# shellcheck disable=SC2034 # not every script uses all of them
probe_docker() {
  local response code=0 pattern=$'engine ([^ \n]+) ?([^ \n]*)'
  ENGINE_VERSION='' LOG_DRIVER='' NO_DOCKER=not-installed REASON='docker is not installed' DOCKER_FIX='install docker'
  command -v docker >/dev/null || return
  response=$(docker_within 5 info --format 'engine {{.ServerVersion}} {{.LoggingDriver}}' 2>&1) || code=$?
  # Old clients exit with 0 without a daemon, and do not print why.
  [[ $code -ne 0 || $response =~ $pattern ]] || response=$(docker_within 5 version 2>&1) || code=$?
  REASON="docker info failed: ${response##*$'\n'}" NO_DOCKER='' DOCKER_FIX='fix the error that docker info reports'
  case $response in
    *[Pp]'ermission denied'*)
      DOCKER_FIX="add your user to the group docker (sudo usermod -aG docker $(id -un)) and log in again, or use sudo"
      ;;
    *'Cannot connect to the Docker daemon'* | *'docker daemon'*running* | *'if the daemon is running'*)
      NO_DOCKER=not-running DOCKER_FIX='start the daemon'
      ;;
  esac
  [[ $code -ne 124 ]] || REASON='docker info did not respond within 5 s' DOCKER_FIX='restart the daemon'
  [[ $code -eq 0 && $response =~ $pattern ]] || return
  ENGINE_VERSION=${BASH_REMATCH[1]} LOG_DRIVER=${BASH_REMATCH[2]}
}
