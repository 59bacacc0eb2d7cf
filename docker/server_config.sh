# shellcheck shell=bash
# Reads the configuration and the status of a model server: parses its flags and its models.config, queries its REST
# API. The entrypoint and the health check source this file inside the image, lib/ sources it on the host; it runs on
# bash 3.2.

# The lexical grammar of protobuf's text format, one token a match; a comment is one token.
QUOTED='"([^"\\]|\\.)*"'
TOKEN="#.*|$QUOTED|${QUOTED//\"/\'}|[A-Za-z0-9_.+-]+|[][{}<>:;,/]"

# get_state_dir: prints where the entrypoint writes what the health check reads. Containers of one pod, or with the
# host's IPC, share /dev/shm, the one place that is writable under --read-only; the mount namespace tells them apart.
get_state_dir() {
  printf '/dev/shm/tfserving-%s' "$(stat -Lc %i /proc/self/ns/mnt 2>/dev/null || true)"
}

# get_flag NAME ARG...: prints the value of the last --NAME=VALUE, which is the one that the server uses.
get_flag() {
  local name=$1 arg value=''
  shift
  for arg; do
    [[ $arg != "--$name="* ]] || value=${arg#*=}
  done
  printf '%s\n' "$value"
}

# unquote LITERAL: prints the text of a string literal; %b does not know \" and \'.
unquote() {
  local text=${1:1:${#1}-2}
  text=${text//\\\"/\"}
  text=${text//\\\'/\'}
  printf '%b' "$text"
}

# list_model_names FILE: prints the model names of a ModelServerConfig in text format, each followed by NUL.
list_model_names() {
  local token field='' path='' literal='' name=''
  while IFS= read -r token; do
    case $token in
      '#'*) continue ;;
      '{' | '<') path+=/$field ;;
      '}' | '>')
        field=${path##*/} # for the next element of a list: config [ {…}, {…} ]
        path=${path%/*}
        ;;
      [\"\']*)
        [[ $path/$field == /model_config_list/config/name ]] || continue
        name+=$(unquote "$token") # adjacent literals are one string
        literal=yes
        continue
        ;;
      []:\;,/[]) ;;
      *) field=$token ;;
    esac
    if [[ -n $literal ]]; then
      printf '%s\0' "$name"
      literal='' name=''
    fi
  done < <(grep -oE -- "$TOKEN" "$1")
}

# percent_encode TEXT: prints it as one segment of a URL, byte by byte.
percent_encode() {
  local LC_ALL=C text=$1 out='' char i
  for ((i = 0; i < ${#text}; i++)); do
    char=${text:i:1}
    case $char in
      [A-Za-z0-9._-]) ;;
      *) printf -v char '%%%02X' $(($(printf '%d' "'$char") & 255)) ;;
    esac
    out+=$char
  done
  printf '%s\n' "$out"
}

# get_model_status ADDRESS PORT MODEL: prints the HTTP response, without CR. With HTTP/1.0 the server closes the
# connection and never sends chunks.
get_model_status() {
  {
    printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$(percent_encode "$3")" >&3
    tr -d '\0\r' <&3
  } 3<>"/dev/tcp/$1/$2"
}
