#!/bin/bash
# Makes the database cluster on the first start, then runs the server as `postgres`.
#   POSTGRES_PASSWORD (required), POSTGRES_USER (postgres), POSTGRES_DB (the user's name),
#   POSTGRES_INITDB_ARGS, POSTGRES_HOST_AUTH_METHOD; each of the first three also as NAME_FILE.
set -euo pipefail

from_file() { # NAME: takes its value from the file that NAME_FILE names
    local file="$1_FILE"
    if [ -n "${!file:-}" ]; then
        export "$1=$(<"${!file}")"
        unset "$file"
    fi
}

run_initdb_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sh)
                echo "running $script"
                if [ -x "$script" ]; then "$script"; else . "$script"; fi
                ;;
            *.sql) echo "running $script" && "${client[@]}" --dbname "$POSTGRES_DB" --file "$script" ;;
            *.sql.gz) echo "running $script" && gunzip --stdout "$script" | "${client[@]}" --dbname "$POSTGRES_DB" ;;
        esac
    done
}

first_start() {
    from_file POSTGRES_PASSWORD
    from_file POSTGRES_USER
    from_file POSTGRES_DB
    : "${POSTGRES_USER:=postgres}"
    export POSTGRES_USER POSTGRES_DB="${POSTGRES_DB:-$POSTGRES_USER}"
    local method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "$method" != trust ]; then
        echo "POSTGRES_PASSWORD is not set: the database would have no password" >&2
        exit 1
    fi
    local -a more=()
    read -r -a more <<<"${POSTGRES_INITDB_ARGS:-}"
    initdb --username "$POSTGRES_USER" --pwfile <(printf '%s\n' "${POSTGRES_PASSWORD:-none}") "${more[@]}"
    echo "host all all all $method" >>"$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"

    # Only by the socket, so that nobody takes a half-made database for a ready one.
    pg_ctl --pgdata "$PGDATA" --options "-c listen_addresses=''" --wait start
    client=(psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password)
    if [ "$POSTGRES_DB" != postgres ]; then
        "${client[@]}" --dbname postgres --set name="$POSTGRES_DB" <<<'CREATE DATABASE :"name";'
    fi
    run_initdb_scripts
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
}

if [ "${1:0:1}" = - ]; then
    set -- postgres "$@"
fi
if [ "$1" = postgres ]; then
    if [ "$(id -u)" = 0 ]; then
        mkdir -p "$PGDATA"
        chmod 700 "$PGDATA"
        find "$PGDATA" \! -user postgres -exec chown postgres:postgres {} +
        HOME=/var/lib/postgresql exec setpriv --reuid postgres --regid postgres --init-groups "$BASH_SOURCE" "$@"
    fi
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        first_start
        echo "PostgreSQL is set up and starts now"
    fi
fi
exec "$@"
