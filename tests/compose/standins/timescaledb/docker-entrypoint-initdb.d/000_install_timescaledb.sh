#!/usr/bin/env bash
set -euo pipefail
for database in postgres template1 "$POSTGRES_DB"; do
    psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$database" -c 'CREATE EXTENSION IF NOT EXISTS timescaledb'
done
