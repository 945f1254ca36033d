#!/bin/sh
# Fills an empty /var/www/html with WordPress, then runs Apache. The settings come from the environment:
# WORDPRESS_DB_HOST, WORDPRESS_DB_USER, WORDPRESS_DB_PASSWORD, WORDPRESS_DB_NAME, WORDPRESS_TABLE_PREFIX.
set -eu
if [ "$1" = apache2-foreground ] && [ ! -e index.php ]; then
    cp -a /usr/src/wordpress/. .
    cp -a /usr/src/wp-config-docker.php wp-config.php
    # Each installation has keys of its own.
    for key in AUTH SECURE_AUTH LOGGED_IN NONCE; do
        for kind in KEY SALT; do
            printf "define('%s_%s', '%s');\n" "$key" "$kind" "$(head -c 48 /dev/urandom | base64 -w 0)"
        done
    done >wp-keys.php.new
    { echo '<?php' && cat wp-keys.php.new; } >wp-keys.php
    rm wp-keys.php.new
    chown www-data:www-data wp-config.php wp-keys.php
fi
exec "$@"
