#!/usr/bin/env bash
# Runs once, when the database is created: a role that owns the tables, one that writes their rows (the sink), and one
# that reads them (dashboard, Grafana, exporter).
set -euo pipefail
psql -v ON_ERROR_STOP=1 --no-psqlrc -U "$POSTGRES_USER" -d "$POSTGRES_DB" -v owner_password="$TICKPIPE_DB_PASSWORD" \
    -v writer_password="$TICKPIPE_WRITER_PASSWORD" -v reader_password="$TICKPIPE_READER_PASSWORD" <<'SQL'
CREATE ROLE tickpipe LOGIN PASSWORD :'owner_password';
CREATE ROLE tickpipe_writer LOGIN PASSWORD :'writer_password';
CREATE ROLE tickpipe_reader LOGIN PASSWORD :'reader_password' CONNECTION LIMIT 20;
ALTER DATABASE tickpipe OWNER TO tickpipe;
-- The sink stages each batch in a temporary table.
REVOKE TEMPORARY ON DATABASE tickpipe FROM PUBLIC;
-- Migrations create the tables later, as the owner. Not pg_read_all_data, which reads the hashed passwords in pg_authid
-- as well.
ALTER DEFAULT PRIVILEGES FOR ROLE tickpipe IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tickpipe_writer;
ALTER DEFAULT PRIVILEGES FOR ROLE tickpipe IN SCHEMA public GRANT SELECT ON TABLES TO tickpipe_reader;
GRANT pg_monitor TO tickpipe_reader;
ALTER ROLE tickpipe_reader SET default_transaction_read_only = on;
ALTER ROLE tickpipe_reader SET statement_timeout = '30s';
ALTER ROLE CURRENT_USER PASSWORD NULL;
SQL
