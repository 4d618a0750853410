"""Rules and dashboard ask for metrics that exist, and the compose files for settings that exist; pure text."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dashboard.metrics import Metrics as DashboardMetrics
from marketdata.settings import Settings
from producer.metrics import Metrics as ProducerMetrics
from sink.metrics import Metrics as SinkMetrics
from stream_app.metrics import Metrics as StreamMetrics

ROOT = Path(__file__).parents[3]
RULES = (ROOT / "compose" / "prometheus" / "rules.yml").read_text()
DASHBOARD = json.loads((ROOT / "compose" / "grafana" / "dashboards" / "tickpipe.json").read_text())
COMPOSE = (ROOT / "compose" / "compose.yaml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()

#: Suffixes that the client adds to the name of a family, by type.
_EXPOSED = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}

#: Metrics of the exporters that are asked for: kafka_exporter and postgres_exporter.
_FOREIGN = {"kafka_consumergroup_lag", "pg_up", "pg_database_size_bytes"}

#: Variables of the compose files that are no settings of the services.
_OF_COMPOSE = re.compile(
    r"TICKPIPE_(API_KEY|DB_PASSWORD|DEMO_KEY|READER_PASSWORD|BIND|PORT|(PAGES|DASHBOARD)_BIND|(GRAFANA|PROMETHEUS)_(PORT|PASSWORD)"
    r"|PROMETHEUS_(RETENTION|SIZE)|KAFKA_(CLUSTER_ID|HEAP|MEMORY|CPUS)|DATABASE_(TUNE_)?(MEMORY|CPUS)|([A-Z_]+_)?IMAGE)"
)


def exposed_metrics() -> set[str]:
    """Names as Prometheus sees them, from the registries of the services."""
    registries = [each().registry for each in (ProducerMetrics, StreamMetrics, DashboardMetrics)]
    registries.append(SinkMetrics(CollectorRegistry()).registry)
    return {
        family.name + suffix
        for registry in registries
        for family in registry.collect()
        for suffix in _EXPOSED[family.type]
    }


def expressions() -> list[str]:
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return re.findall(r"expr: (.+(?:\n {10}.+)*)", RULES) + [target["expr"] for target in targets if "expr" in target]


def test_the_code_is_read() -> None:
    assert {
        "tickpipe_producer_ticks_accepted_total",
        "tickpipe_stream_lag_records",
        "tickpipe_stage_seconds_bucket",
    } <= exposed_metrics()
    assert len(expressions()) > 40


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_metric_that_is_asked_for_exists(expression: str) -> None:
    recorded = set(re.findall(r"record: (\S+)", RULES))
    asked = set(re.findall(r"\b(?:tickpipe|kafka|pg)[_:][\w:]+", re.sub(r'"[^"]*"', "", expression)))
    assert asked <= exposed_metrics() | recorded | _FOREIGN


def test_every_panel_names_a_provisioned_data_source() -> None:
    provisioned = (ROOT / "compose" / "grafana" / "provisioning" / "datasources" / "tickpipe.yml").read_text()
    uids = set(re.findall(r"uid: (\S+)", provisioned))
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == uids


@pytest.mark.parametrize("text", [COMPOSE, EXAMPLE], ids=["compose.yaml", ".env.example"])
def test_every_setting_exists(text: str) -> None:
    fields = {f"TICKPIPE_{name.upper()}" for name in Settings.model_fields}
    unknown = {name for name in re.findall(r"TICKPIPE_[A-Z_]+", text) if not _OF_COMPOSE.fullmatch(name)} - fields
    assert unknown == set()


def test_every_required_secret_has_an_example_and_is_checked() -> None:
    required = set(re.findall(r"\$\{(TICKPIPE_\w+):\?", COMPOSE))
    examples = set(re.findall(r"^(TICKPIPE_\w+)=change-me$", EXAMPLE, re.MULTILINE))
    checked = re.search(r"SECRETS: ((?:.|\n)+?)\n +TICKPIPE_\w+:", COMPOSE)
    assert checked
    assert required == examples == set(checked[1].split())


def test_producer_and_dashboard_alone_of_ours_are_published() -> None:
    ports = re.findall(r"- host_ip: \$\{(\w+):-127\.0\.0\.1\}\n +published: \$\{\w+:-(\d+)\}\n +target: (\d+)", COMPOSE)
    assert ports == [
        ("TICKPIPE_BIND", "18001", "18001"),
        ("TICKPIPE_DASHBOARD_BIND", "18080", "18080"),
        ("TICKPIPE_PAGES_BIND", "9090", "9090"),
        ("TICKPIPE_PAGES_BIND", "3000", "3000"),
    ]
    assert COMPOSE.count("ports:") == len(ports)


def test_the_image_is_tagged_with_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert set(re.findall(r"tickpipe:(\d[\w.]*)", COMPOSE + EXAMPLE)) == {version}
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
