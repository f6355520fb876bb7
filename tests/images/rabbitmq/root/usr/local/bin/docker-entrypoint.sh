#!/bin/sh
set -eu
case ${1:-} in
    rabbitmq*)
        if [ "$(id -u)" = 0 ]; then
            find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq: {} +
            exec gosu rabbitmq "$0" "$@"
        fi
        ;;
esac
if [ "${1:-}" = rabbitmq-server ]; then
    : >/var/lib/rabbitmq/settings.conf
    [ -z "${RABBITMQ_DEFAULT_USER:-}" ] || echo "default_user = $RABBITMQ_DEFAULT_USER" >>/var/lib/rabbitmq/settings.conf
    [ -z "${RABBITMQ_DEFAULT_PASS:-}" ] || echo "default_pass = $RABBITMQ_DEFAULT_PASS" >>/var/lib/rabbitmq/settings.conf
    export RABBITMQ_CONFIG_FILE=/var/lib/rabbitmq/settings.conf
fi
exec "$@"
