#!/bin/sh
# `redis-server` and its options; other commands run as they are. The server runs as `redis`.
set -eu
case ${1:-} in
    -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "${1:-}" = redis-server ]; then
    # Other containers are meant to reach it, so the refusal of foreign addresses without a password is off.
    # It goes first: an option given by the user wins.
    shift
    case ${1:-} in
        *.conf)
            file=$1
            shift
            set -- redis-server "$file" "$@"
            ;;
        *) set -- redis-server --protected-mode no "$@" ;;
    esac
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis:redis {} +
        exec setpriv --reuid redis --regid redis --init-groups "$@"
    fi
fi
exec "$@"
