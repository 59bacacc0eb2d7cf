#!/bin/sh
# As in the official image: arguments that begin with a dash are arguments of envoy.
case $1 in -*) set -- envoy "$@" ;; esac
exec "$@"
