#!/bin/sh
# Turns /etc/nginx/templates/NAME.template into /etc/nginx/conf.d/NAME, replacing ${VARIABLE}s that are set.
set -eu
[ -d /etc/nginx/templates ] || exit 0
defined=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p' | tr '\n' ' ')
for template in /etc/nginx/templates/*.template; do
    [ -e "$template" ] || continue
    name=${template##*/}
    envsubst "$defined" <"$template" >"/etc/nginx/conf.d/${name%.template}"
done
