#!/usr/bin/env bash
# Runs once, when the database is created: a role that may look at everything and change nothing, for Grafana and the
# exporter.
set -euo pipefail
psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v password="$TICKPIPE_READER_PASSWORD" <<'SQL'
CREATE ROLE tickpipe_reader LOGIN PASSWORD :'password' CONNECTION LIMIT 20;
-- Not pg_read_all_data, which reads the hashed passwords in pg_authid as well. Migrations create the tables later.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO tickpipe_reader;
GRANT pg_monitor TO tickpipe_reader;
ALTER ROLE tickpipe_reader SET default_transaction_read_only = on;
ALTER ROLE tickpipe_reader SET statement_timeout = '30s';
SQL
