#!/bin/bash
# Makes the system tables on the first start, then runs the server as `mysql`.
#   MARIADB_ROOT_PASSWORD, MARIADB_RANDOM_ROOT_PASSWORD or MARIADB_ALLOW_EMPTY_ROOT_PASSWORD (one is required),
#   MARIADB_DATABASE, MARIADB_USER, MARIADB_PASSWORD; all of them also as MYSQL_..., passwords also as NAME_FILE.
set -euo pipefail

from_file() { # NAME: takes its value from MYSQL_NAME, or from the file that NAME_FILE names
    local ours="MARIADB_$1" theirs="MYSQL_$1" name
    for name in "${ours}_FILE" "${theirs}_FILE"; do
        [ -z "${!name:-}" ] || export "$ours=$(<"${!name}")"
    done
    [ -n "${!ours:-}" ] || export "$ours=${!theirs:-}"
}

quoted() { # a string as SQL writes it
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\\\'}"
}

run_initdb_scripts() {
    local script
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sh)
                echo "running $script"
                if [ -x "$script" ]; then "$script"; else . "$script"; fi
                ;;
            *.sql) echo "running $script" && "${client[@]}" "$MARIADB_DATABASE" <"$script" ;;
            *.sql.gz) echo "running $script" && gunzip --stdout "$script" | "${client[@]}" "$MARIADB_DATABASE" ;;
        esac
    done
}

first_start() {
    local name socket=/run/mysqld/set-up.sock server
    for name in ROOT_PASSWORD RANDOM_ROOT_PASSWORD ALLOW_EMPTY_ROOT_PASSWORD DATABASE USER PASSWORD; do
        from_file "$name"
    done
    if [ -n "$MARIADB_RANDOM_ROOT_PASSWORD" ]; then
        MARIADB_ROOT_PASSWORD=$(head --bytes 18 /dev/urandom | base64)
        echo "GENERATED ROOT PASSWORD: $MARIADB_ROOT_PASSWORD"
    elif [ -z "$MARIADB_ROOT_PASSWORD" ] && [ -z "$MARIADB_ALLOW_EMPTY_ROOT_PASSWORD" ]; then
        echo "one of MARIADB_ROOT_PASSWORD, MARIADB_RANDOM_ROOT_PASSWORD and" \
            "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD must be set" >&2
        exit 1
    fi
    mariadb-install-db --datadir /var/lib/mysql --auth-root-authentication-method=normal --skip-test-db \
        --skip-log-bin >/dev/null
    mariadbd --datadir /var/lib/mysql --skip-networking --socket "$socket" &
    server=$!
    client=(mariadb --no-defaults --protocol socket --socket "$socket" --user root)
    until "${client[@]}" --execute 'SELECT 1' >/dev/null 2>&1; do
        kill -0 "$server"
        sleep 0.1
    done
    "${client[@]}" <<SQL
CREATE USER healthcheck@127.0.0.1;
${MARIADB_DATABASE:+CREATE DATABASE IF NOT EXISTS \`$MARIADB_DATABASE\`;}
SQL
    if [ -n "$MARIADB_USER" ]; then
        "${client[@]}" <<SQL
CREATE USER $(quoted "$MARIADB_USER")@'%' IDENTIFIED BY $(quoted "$MARIADB_PASSWORD");
${MARIADB_DATABASE:+GRANT ALL ON \`$MARIADB_DATABASE\`.* TO $(quoted "$MARIADB_USER")@'%';}
SQL
    fi
    run_initdb_scripts
    "${client[@]}" <<SQL
CREATE USER root@'%' IDENTIFIED BY $(quoted "$MARIADB_ROOT_PASSWORD");
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
ALTER USER root@localhost IDENTIFIED BY $(quoted "$MARIADB_ROOT_PASSWORD");
SQL
    kill "$server"
    wait "$server"
}

if [ "${1:0:1}" = - ]; then
    set -- mariadbd "$@"
fi
case $1 in
    mariadbd | mysqld)
        if [ "$(id -u)" = 0 ]; then
            mkdir -p /run/mysqld
            find /run/mysqld /var/lib/mysql \! -user mysql -exec chown mysql:mysql {} +
            exec setpriv --reuid mysql --regid mysql --init-groups "$BASH_SOURCE" "$@"
        fi
        if [ ! -d /var/lib/mysql/mysql ]; then
            first_start
            echo "MariaDB is set up and starts now"
        fi
        ;;
esac
exec "$@"
