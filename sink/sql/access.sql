-- The database of the embedded stack and the role that other machines read it with. The names in braces are identifiers.

-- name: find_database_and_reader
SELECT
    EXISTS (SELECT FROM pg_database WHERE datname = %(database)s),
    EXISTS (SELECT FROM pg_roles WHERE rolname = %(reader)s);

-- name: create_database
CREATE DATABASE {database};

-- name: create_reader
CREATE ROLE {reader};

-- name: set_up_reader
-- Table by table, for pg_read_all_data reads the hashed passwords in pg_authid as well. The default privileges are for
-- tables that migrations are going to create.
ALTER ROLE {reader}
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN CONNECTION LIMIT 20 PASSWORD {password};
ALTER ROLE {reader} SET default_transaction_read_only = on;
REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {reader};
