"""Rules and dashboards ask for metrics that exist, and the compose files for settings that exist; pure text."""

import json
import re
import runpy
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from prometheus_client import CollectorRegistry

from archive.metrics import Metrics as ArchiveMetrics
from dashboard.metrics import Metrics as DashboardMetrics
from producer.metrics import Metrics as ProducerMetrics
from relay.back_channel import FillCounts
from relay.forwarder import Totals
from relay.metrics import Metrics as RelayMetrics
from relay.pending import Backlog
from relay.store import Store
from runtime.settings import Settings
from sink.metrics import Metrics as SinkMetrics
from stream_app.emitter import Metrics as StreamMetrics

ROOT = Path(__file__).parents[3]
RULES = (ROOT / "compose" / "prometheus" / "rules.yml").read_text()
COMPAT = (ROOT / "compose" / "prometheus" / "compat.yml").read_text()
DASHBOARDS = [json.loads(path.read_text()) for path in sorted((ROOT / "compose/grafana/dashboards").glob("*.json"))]
PANELS = [panel for dashboard in DASHBOARDS for panel in dashboard["panels"]]
COMPOSE = (ROOT / "compose" / "compose.yaml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()

#: Suffixes that the client adds to the name of a family, by type.
_EXPOSED = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}

#: Metrics of the exporters that are asked for, as the documentation lists them.
_FOREIGN = set(
    re.findall(
        r"`(\w+)`",
        (ROOT / "docs" / "monitoring.md").read_text().partition("## Metrics of the exporters")[2].partition("\n## ")[0],
    )
)

#: Functions and keywords of PromQL that are asked with, and labels.
_PROMQL = {
    "sum", "min", "max", "count", "by", "on", "and", "or", "unless", "absent", "rate", "increase", "changes", "deriv",
    "predict_linear", "histogram_quantile", "vector", "time", "day_of_week", "hour", "le", "stage", "source", "route",
    "status", "task", "kind", "topic", "consumergroup", "action", "verdict", "symbol", "instance", "job", "datname",
    "mountpoint", "fits", "cause", "endpoint", "label_replace", "key", "part_of",
}  # fmt: skip

#: Variables of the compose files that are no settings of the services.
_OF_COMPOSE = re.compile(
    r"TICKPIPE_(API_KEY|(DB|READER|WRITER)_PASSWORD|DEMO_KEY|BIND|PORT|(PAGES|DASHBOARD|POSTGRES)_BIND"
    r"|(GRAFANA|PROMETHEUS)_(PORT|PASSWORD)|POSTGRES_PORT"
    r"|PROMETHEUS_(RETENTION|SIZE)|KAFKA_(CLUSTER_ID|HEAP|MEMORY|CPUS)|DATABASE_(TUNE_)?(MEMORY|CPUS)|([A-Z_]+_)?IMAGE|TLS_[A-Z_]+|FILES|OWNER_DATABASE_URL)"
)


def exposed_metrics() -> set[str]:
    """Names as Prometheus sees them, from the registries of the services."""
    registries = [each().registry for each in (ProducerMetrics, StreamMetrics, DashboardMetrics)]
    registries += [each(CollectorRegistry()).registry for each in (SinkMetrics, ArchiveMetrics)]
    with TemporaryDirectory() as folder, Store(Path(folder) / "ea.db") as store:
        registries.append(RelayMetrics(store, Totals(), Backlog(store), FillCounts()).registry)
        return {
            family.name + suffix
            for registry in registries
            for family in registry.collect()
            for suffix in _EXPOSED[family.type]
        }


def expressions() -> list[str]:
    files = (yaml.safe_load(text)["groups"] for text in (RULES, COMPAT))
    rules = [rule["expr"] for groups in files for group in groups for rule in group["rules"]]
    return rules + [target["expr"] for panel in PANELS for target in panel["targets"] if "expr" in target]


def asked_metrics(expression: str) -> set[str]:
    """Names of metrics in an expression: every word that is no label in braces, no range, no text and no function."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\"[^\"]*\"", "", expression)
    return set(re.findall(r"(?<![\w.$])[a-zA-Z_][\w:]*", bare)) - _PROMQL


def test_the_code_is_read() -> None:
    assert {
        "tickpipe_producer_ticks_accepted_total",
        "tickpipe_stream_lag_records",
        "tickpipe_stage_seconds_bucket",
    } <= exposed_metrics()
    assert len(expressions()) > 50


def test_every_metric_that_is_asked_for_exists() -> None:
    known = exposed_metrics() | set(re.findall(r"record: (\S+)", RULES)) | _FOREIGN
    asked = {expression: asked_metrics(expression) for expression in expressions()}
    assert [expression for expression, names in asked.items() if not names and "day_of_week" not in expression] == []
    assert {expression: names - known for expression, names in asked.items() if names - known} == {}


def test_every_name_of_the_older_stack_is_documented_and_tried() -> None:
    recorded = {rule["record"] for group in yaml.safe_load(COMPAT)["groups"] for rule in group["rules"]}
    section = (ROOT / "docs" / "monitoring.md").read_text().partition("## Names of an older stack")[2]
    assert recorded <= set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE))
    tried = (ROOT / "tests" / "compose" / "rules" / "compat.test.yml").read_text().partition("promql_expr_test")[2]
    assert all(name in tried for name in recorded)


def test_no_documented_metric_of_an_exporter_is_idle() -> None:
    assert set().union(*map(asked_metrics, expressions())) >= _FOREIGN


def test_panels_are_described_and_know_their_units() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"], panel["title"]
        if panel["type"] in ("stat", "timeseries"):
            defaults = panel["fieldConfig"]["defaults"]
            assert "unit" in defaults or "mappings" in defaults, panel["title"]
        if panel["type"] == "stat":
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"], panel["title"]


ALERTS = {
    rule["alert"]: rule for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"] if "alert" in rule
}


def test_every_alert_tells_what_it_means_and_where_to_read_on() -> None:
    sections = set(re.findall(r"^### (\w+)$", (ROOT / "docs" / "runbook.md").read_text(), re.MULTILINE))
    assert sections == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_every_alert_is_tried_firing_and_not_firing() -> None:
    tests = yaml.safe_load((ROOT / "tests" / "compose" / "rules" / "alerts.test.yml").read_text())["tests"]
    names = {test["name"] for test in tests}
    assert {f"{alert} {does}" for alert in ALERTS for does in ("fires", "is quiet")} <= names


def test_dashboards_are_three_of_one_kind() -> None:
    assert [dashboard["uid"] for dashboard in DASHBOARDS] == [
        f"tickpipe-{name}" for name in ("market", "pipeline", "servers")
    ]
    for dashboard in DASHBOARDS:
        assert (dashboard["timezone"], dashboard["editable"], dashboard["tags"]) == ("utc", False, ["tickpipe"])
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
    assert f"/etc/tickpipe/dashboards/{DASHBOARDS[1]['uid']}.json" in COMPOSE


def test_every_panel_names_a_provisioned_data_source() -> None:
    provisioned = (ROOT / "compose" / "grafana" / "provisioning" / "datasources" / "tickpipe.yml").read_text()
    uids = set(re.findall(r"uid: (\S+)", provisioned))
    assert {panel["datasource"]["uid"] for panel in PANELS} == uids


@pytest.mark.parametrize("text", [COMPOSE, EXAMPLE], ids=["compose.yaml", ".env.example"])
def test_every_setting_exists(text: str) -> None:
    fields = {f"TICKPIPE_{name.upper()}{of}" for name in Settings.model_fields for of in ("", "_FILE")}
    unknown = {name for name in re.findall(r"TICKPIPE_[A-Z0-9_]+", text) if not _OF_COMPOSE.fullmatch(name)} - fields
    assert unknown == set()


def test_compose_passes_on_or_refuses_every_setting() -> None:
    """The settings' page names them all, by a test of its own."""
    names = {f"TICKPIPE_{name.upper()}" for name in Settings.model_fields}
    passed_on = set(re.findall(r"^ +(TICKPIPE_\w+):(?: \$\{\1:-[\w:/]+\})?$", COMPOSE, re.MULTILINE))
    of_some_services = {"TICKPIPE_API_KEYS", "TICKPIPE_DATABASE_URL", "TICKPIPE_DASHBOARD_DATABASE_URL"}
    published = {"TICKPIPE_DASHBOARD_PORT"}  # outside; inside it is the image's
    refused = {name for name, same in re.findall(r"\$\{(TICKPIPE_\w+):\+(\w+)\}", COMPOSE) if name == same}
    assert names == (passed_on | of_some_services | published | refused) & names
    assert not refused & passed_on


def test_a_setting_that_compose_overrules_is_refused() -> None:
    check = runpy.run_path(str(ROOT / "compose" / "check_secrets.py"))["complaints"]
    [complaint] = check({"SECRETS": "", "OVERRULED": "  TICKPIPE_PRODUCER_PORT "})
    assert complaint.startswith("TICKPIPE_PRODUCER_PORT has no effect here")
    assert "TICKPIPE_PORT publish the producer" in complaint
    assert check({"SECRETS": "", "OVERRULED": "   "}) == []


def test_every_required_secret_has_an_example_and_is_checked() -> None:
    required = set(re.findall(r"\$\{(TICKPIPE_\w+):\?", COMPOSE))
    examples = set(re.findall(r"^(TICKPIPE_\w+)=change-me$", EXAMPLE, re.MULTILINE))
    checked = re.search(r"SECRETS: ((?:.|\n)+?)\n +TICKPIPE_\w+:", COMPOSE)
    assert checked
    assert required == examples == set(checked[1].split())


def test_producer_and_dashboard_alone_of_ours_are_published() -> None:
    ports = re.findall(r"- host_ip: \$\{(\w+):-([\d.]+)\}\n +published: \$\{\w+:-(\d+)\}\n +target: (\d+)", COMPOSE)
    assert ports == [
        ("TICKPIPE_BIND", "127.0.0.1", "18001", "18001"),
        ("TICKPIPE_DASHBOARD_BIND", "127.0.0.1", "18080", "18080"),
        ("TICKPIPE_TLS_BIND", "0.0.0.0", "8443", "9443"),  # noqa: S104 - compared with
        ("TICKPIPE_TLS_BIND", "0.0.0.0", "443", "8443"),  # noqa: S104 - compared with
        ("TICKPIPE_PAGES_BIND", "127.0.0.1", "9090", "9090"),
        ("TICKPIPE_PAGES_BIND", "127.0.0.1", "3000", "3000"),
    ]
    assert COMPOSE.count("ports:") == len(ports) - 1, "Caddy publishes two"


def test_the_image_is_tagged_with_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert set(re.findall(r"tickpipe:(\d[\w.]*)", COMPOSE + EXAMPLE)) == {version}
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
