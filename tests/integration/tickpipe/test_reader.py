"""Other machines reach the embedded PostgreSQL as a role that reads, when the user says so, and as nobody else."""

import asyncio
import dataclasses
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from typer.testing import CliRunner

from marketdata.errors import StackError
from sink.db.schema import migrate
from tests.architecture import ROOT
from tests.ports import free_port
from tests.servers import Child
from tickpipe.cli import app
from tickpipe.embedded.postgres import Access, Postgres, server_binaries


def own_address() -> str:
    """An address of this machine by which it meets itself as others do."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family is socket.AF_INET and not one.address.startswith("127."):
                return one.address
    pytest.skip("this machine has no address but the loopback's")


@contextmanager
def running(directory: Path, access: Access) -> Iterator[Postgres]:
    """A server of its own."""
    made = Postgres(
        directory / "postgres", free_port(), secrets.token_hex(8), server_binaries(), directory / "log", access
    )
    child = Child(made.spec)
    try:
        child.start()
        child.wait_ready()
        yield made
    finally:
        child.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server open to other machines, with the schema, and names as an older set-up had them."""
    access = Access("0.0.0.0", "mt5_trading", "trader", secrets.token_hex(8), secrets.token_hex(8))  # noqa: S104 - what is tested
    with running(tmp_path_factory.mktemp("reader"), access) as made:
        # As a superuser, as stacks did whose services had no role of their own; the next start hands it over.
        asyncio.run(migrate(made.url))
        assert made.answers()
        yield made


@pytest.fixture
def reader_url(server: Postgres) -> str:
    return make_conninfo(server.access.reader_url(server.port), host=own_address())


def test_the_reader_reads_every_table_and_view(server: Postgres, reader_url: str) -> None:
    """Those as well that were created after the role."""
    names = conninfo_to_dict(reader_url)
    assert (names["dbname"], names["user"]) == ("mt5_trading", "trader")
    with psycopg.connect(reader_url, autocommit=True) as connection:
        readable = "SELECT count(*), bool_and(has_table_privilege(c.oid, 'SELECT')) FROM pg_class AS c"
        found = connection.execute(
            f"{readable} WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')".encode()
        ).fetchone()
        assert found is not None
        assert found[0] > 8
        assert found[1]
        connection.execute("SELECT * FROM market_data, senders")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO instruments DEFAULT VALUES",
        "UPDATE market_data SET close = 0",
        "DELETE FROM market_data",
        "TRUNCATE market_data",
        "CREATE TABLE mine (n integer)",
        "CREATE TEMPORARY TABLE mine (n integer)",
        "ALTER TABLE market_data ADD COLUMN mine integer",
        "SELECT set_candle_day('UTC', '00:00', NULL)",
        # What holds secrets, and ways to the files and programs of the server.
        "SELECT rolpassword FROM pg_authid",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('PG_VERSION')",
        "ALTER ROLE trader SUPERUSER",
    ],
)
def test_the_reader_does_nothing_else(reader_url: str, statement: str) -> None:
    """Nor when it takes back the setting that makes its transactions read-only."""
    with psycopg.connect(reader_url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


@pytest.mark.parametrize(("name", "user"), [("url", "postgres"), ("services_url", "tickpipe")])
def test_no_other_role_gets_in_from_another_machine(server: Postgres, name: str, user: str) -> None:
    url = getattr(server, name)
    with psycopg.connect(url) as connection:
        assert connection.info.user == user
    with pytest.raises(psycopg.OperationalError, match="pg_hba"):
        psycopg.connect(make_conninfo(url, host=own_address()))


def test_the_role_of_the_services_owns_their_database_and_is_no_superuser(server: Postgres) -> None:
    with psycopg.connect(server.services_url, autocommit=True) as connection:
        others = connection.execute(
            "SELECT array_agg(DISTINCT relkind), array_agg(DISTINCT relowner::regrole::text) FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace"
        ).fetchone()
        assert others is not None
        assert others[1] == ["tickpipe"]
        assert {"r", "v", "i"} <= set(others[0])
        connection.execute("ALTER TABLE market_data ADD COLUMN mine integer")
        connection.execute("ALTER TABLE market_data DROP COLUMN mine")
        connection.execute("CREATE OR REPLACE VIEW mine AS SELECT 1")
        connection.execute("DROP VIEW mine")
        for statement in ("SELECT rolpassword FROM pg_authid", "COPY (SELECT 1) TO PROGRAM 'true'", "CREATE ROLE mine"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    # What it makes from now on the reader reads as well.
    asyncio.run(migrate(server.services_url))


def test_other_databases_are_none_of_the_readers_business(reader_url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="pg_hba"):
        psycopg.connect(make_conninfo(reader_url, dbname="postgres"))


def test_the_five_queries_are_answered_to_the_reader(reader_url: str, tmp_path: Path) -> None:
    """As `run-verify-sql.ps1` asks them."""
    environment = {"TICKPIPE_DATABASE_URL": reader_url, "TICKPIPE_DATA_DIR": str(tmp_path / "none")}
    for number in range(1, 6):
        result = CliRunner().invoke(app, ["query", str(number), "--format", "csv"], env={**os.environ, **environment})
        assert result.exit_code == 0, result.output


def test_another_password_counts_from_the_next_start_on(server: Postgres) -> None:
    renewed = dataclasses.replace(server, access=dataclasses.replace(server.access, reader_password="an-other"))  # noqa: S106 - made up
    try:
        assert renewed.answers()
        psycopg.connect(renewed.access.reader_url(server.port).replace(socket.gethostname(), "127.0.0.1")).close()
    finally:
        assert server.answers()


def test_the_reader_finds_the_tables_of_another_schema(server: Postgres) -> None:
    access = dataclasses.replace(server.access, database="another", schema="tickpipe")
    other = dataclasses.replace(server, access=access)
    assert other.answers()
    asyncio.run(migrate(make_conninfo(other.services_url, options="-c search_path=tickpipe")))
    with psycopg.connect(other.local_reader_url) as connection:
        found = connection.execute("SELECT count(*) FROM market_data")
        assert found.fetchone() == (0,)
        assert connection.execute("SELECT to_regclass('public.market_data')").fetchone() == (None,)


@pytest.mark.parametrize(
    "names", [{"reader": "postgres"}, {"reader": "tickpipe"}, {"database": "postgres"}, {"database": "template1"}]
)
def test_names_of_the_server_itself_are_refused(names: dict[str, str]) -> None:
    with pytest.raises(StackError, match="choose another"):
        Access(**names)


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - what is tested
        ("::", "*"),
        ("192.168.1.10", "127.0.0.1,192.168.1.10"),
    ],
)
def test_services_reach_the_server_whatever_it_listens_on(host: str, addresses: str) -> None:
    assert Access(host).listen_addresses == addresses


@pytest.fixture(scope="module")
def of_compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database whose roles the script of the compose file has made, as the superuser that it runs as."""
    with running(tmp_path_factory.mktemp("compose"), Access()) as server:
        yield _made_by_compose(server)


def _made_by_compose(server: Postgres) -> str:
    with psycopg.connect(make_conninfo(server.url, dbname="postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE bootstrap SUPERUSER LOGIN PASSWORD 'bootstrap'")
        connection.execute("CREATE DATABASE tickpipe OWNER bootstrap")
    passwords = {f"TICKPIPE_{name}_PASSWORD": f"of-{name}" for name in ("DB", "WRITER", "READER")}
    environment = {
        "PATH": f"{server_binaries()}:{os.environ['PATH']}", "POSTGRES_USER": "bootstrap", "POSTGRES_DB": "tickpipe",
        "PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGPASSWORD": "bootstrap", **passwords,
    }  # fmt: skip
    subprocess.run(["bash", str(ROOT / "compose/timescaledb/roles.sh")], check=True, env=environment)
    url = make_conninfo(server.url, dbname="tickpipe")
    asyncio.run(migrate(make_conninfo(url, user="tickpipe", password="of-DB")))  # noqa: S106 - made up
    return url


def test_each_role_of_the_compose_file_may_do_its_part_and_no_more(of_compose: str) -> None:
    refusals = {
        "tickpipe_reader": ("DELETE FROM market_data", "SELECT rolpassword FROM pg_authid", "CREATE TEMP TABLE t ()"),
        "tickpipe_writer": ("DROP TABLE market_data", "CREATE TABLE t ()", "SELECT rolpassword FROM pg_authid"),
        "tickpipe": ("CREATE ROLE other", "SELECT rolpassword FROM pg_authid"),
    }
    works = {
        "tickpipe_reader": "SELECT * FROM market_data, senders",
        "tickpipe_writer": "DELETE FROM market_data",
        "tickpipe": "ALTER TABLE market_data ADD COLUMN note text",
    }
    for role, password in (("tickpipe", "DB"), ("tickpipe_writer", "WRITER"), ("tickpipe_reader", "READER")):
        url = make_conninfo(of_compose, user=role, password=f"of-{password}")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(works[role].encode())
            for statement in refusals[role]:
                with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
                    connection.execute(statement.encode())


def test_the_superuser_of_the_compose_file_has_no_password(of_compose: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(make_conninfo(of_compose, user="bootstrap", password="bootstrap"))  # noqa: S106 - made up
