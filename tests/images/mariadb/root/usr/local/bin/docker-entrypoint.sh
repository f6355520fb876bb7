#!/bin/sh
# Makes the system tables where there are none, then runs the server. Variables: MARIADB_ROOT_PASSWORD, MARIADB_DATABASE,
# MARIADB_USER, MARIADB_PASSWORD, their MYSQL_ twins, all also with _FILE; MARIADB_ALLOW_EMPTY_ROOT_PASSWORD.
set -eu

setting() {
    for prefix in MARIADB MYSQL; do
        eval "value=\${${prefix}_$1:-} file=\${${prefix}_$1_FILE:-}"
        if [ -n "$file" ]; then value=$(cat "$file"); fi
        if [ -n "$value" ]; then break; fi
    done
    printf '%s' "$value"
}

# A string as SQL writes it.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/\\\\/\\\\\\\\/g; s/'/''/g")"
}

case ${1:-} in -*) set -- mariadbd "$@" ;; esac
if [ "${1:-}" = mariadbd ] && [ "$(id -u)" = 0 ]; then
    mkdir -p /var/lib/mysql /run/mysqld
    chown -R mysql:mysql /var/lib/mysql /run/mysqld
    exec gosu mysql "$0" "$@"
fi

if [ "${1:-}" = mariadbd ] && [ ! -d /var/lib/mysql/mysql ]; then
    password=$(setting ROOT_PASSWORD)
    if [ -z "$password" ] && [ -z "$(setting ALLOW_EMPTY_ROOT_PASSWORD)" ]; then
        echo "Error: Database is uninitialized and password option is not specified: set MARIADB_ROOT_PASSWORD." >&2
        exit 1
    fi
    mariadb-install-db --datadir=/var/lib/mysql --auth-root-authentication-method=normal --skip-test-db >/dev/null
    # A statement a line: that is how --bootstrap reads them.
    {
        # Those of this host have no password.
        echo "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host != 'localhost';"
        echo 'FLUSH PRIVILEGES;'
        echo "CREATE USER 'healthcheck'@'%';"
        echo "CREATE USER 'healthcheck'@'localhost';"
        echo "CREATE USER 'root'@'%' IDENTIFIED BY $(quoted "$password");"
        echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
        echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $(quoted "$password");"
        database=$(setting DATABASE)
        user=$(setting USER)
        if [ -n "$database" ]; then echo "CREATE DATABASE IF NOT EXISTS \`$database\`;"; fi
        if [ -n "$user" ]; then echo "CREATE USER '$user'@'%' IDENTIFIED BY $(quoted "$(setting PASSWORD)");"; fi
        if [ -n "$user" ] && [ -n "$database" ]; then echo "GRANT ALL ON \`$database\`.* TO '$user'@'%';"; fi
    } | mariadbd --bootstrap --skip-networking
fi
exec "$@"
