-- The database of the embedded stack, the role that its services use and the one that reads. Neither is a superuser. The
-- names in braces are identifiers.

-- name: find_database_and_roles
SELECT
    EXISTS (SELECT FROM pg_database WHERE datname = %(database)s),
    ARRAY(SELECT rolname::text FROM pg_roles);

-- name: create_database
CREATE DATABASE {database};

-- name: create_role
CREATE ROLE {role};

-- name: set_up_services
ALTER ROLE {services} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN PASSWORD {services_password};
ALTER DATABASE {database} OWNER TO {services};
CREATE SCHEMA IF NOT EXISTS {schema};
ALTER SCHEMA {schema} OWNER TO {services};

-- name: hand_over
-- What was made before the services had a role of their own. Sequences and types of rows follow their tables.
DO $$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        SELECT
            format(
                'ALTER %s %s OWNER TO {services}',
                CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'TABLE' END,
                oid::regclass
            )
        FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND relowner = 10
        UNION ALL
        SELECT format('ALTER ROUTINE %s OWNER TO {services}', oid::regprocedure)
        FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proowner = 10
        UNION ALL
        SELECT format('ALTER TYPE %s OWNER TO {services}', pg_type.oid::regtype)
        FROM pg_type
        LEFT JOIN pg_class ON pg_class.oid = typrelid
        WHERE
            typnamespace = 'public'::regnamespace AND typowner = 10
            AND (typtype IN ('d', 'e') OR (typtype = 'c' AND relkind = 'c'))
    LOOP
        EXECUTE statement;
    END LOOP;
END
$$;

-- name: set_up_reader
-- Table by table, for pg_read_all_data reads the hashed passwords in pg_authid as well. The default privileges are for
-- tables that migrations are going to create.
ALTER ROLE {reader}
    NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN CONNECTION LIMIT 20 PASSWORD {reader_password};
ALTER ROLE {reader} SET default_transaction_read_only = on;
REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
-- So that a query finds the tables by their names alone.
ALTER ROLE {reader} IN DATABASE {database} SET search_path = {schema}, public;
GRANT USAGE ON SCHEMA {schema} TO {reader};
GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {services} IN SCHEMA {schema} GRANT SELECT ON TABLES TO {reader};
