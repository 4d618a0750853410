#!/usr/bin/env bash
# What the real entry point does with the variables that the compose files set: initialise an empty PGDATA, run the
# start scripts against a server that listens on its socket alone, then start.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
    chown postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "Error: Database is uninitialized and superuser password is not specified." >&2
        exit 1
    fi
    export POSTGRES_USER=${POSTGRES_USER:-postgres}
    export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
    # shellcheck disable=SC2086  # several options in one variable, as in the real entry point
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") ${POSTGRES_INITDB_ARGS:-}
    printf '\nhost all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
    # As the real image's tuning does, which gives 1 GB no more than 25.
    printf '\nmax_connections = %s\n' "${TS_TUNE_MAX_CONNS:-25}" >> "$PGDATA/postgresql.conf"
    PGUSER=$POSTGRES_USER pg_ctl -w -o "-c listen_addresses=''" start
    export PGPASSWORD=$POSTGRES_PASSWORD
    if [ "$POSTGRES_DB" != postgres ]; then
        psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$POSTGRES_USER" -d postgres -c "CREATE DATABASE \"$POSTGRES_DB\""
    fi
    for script in /docker-entrypoint-initdb.d/*.sh; do
        echo "$0: running $script"
        if [ -x "$script" ]; then
            "$script"
        else
            # shellcheck disable=SC1090
            . "$script"
        fi
    done
    pg_ctl -m fast -w stop
    unset PGPASSWORD
fi
exec "$@"
