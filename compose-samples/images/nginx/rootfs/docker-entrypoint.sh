#!/bin/sh
# Runs what lies in /docker-entrypoint.d before nginx starts.
set -eu
if [ "$1" = nginx ]; then
    for script in /docker-entrypoint.d/*.sh; do
        [ ! -x "$script" ] || "$script"
    done
fi
exec "$@"
