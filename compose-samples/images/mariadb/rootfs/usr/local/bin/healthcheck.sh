#!/bin/sh
# Healthy once the real server answers over TCP: the one that runs during set-up only has a socket.
# Takes the options people write in compose files (--connect, --innodb_initialized); both mean this here.
set -eu
exec mariadb --protocol tcp --host 127.0.0.1 --user healthcheck --batch --skip-column-names \
    --execute 'SELECT 1' >/dev/null
