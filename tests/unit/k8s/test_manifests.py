"""The Kubernetes files say what the code and the compose files say; pure text, no cluster and no schema."""

import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.services import DECLARED
from runtime.settings import Settings, load_settings
from runtime.topics import topics
from tests import tools

ROOT = Path(__file__).parents[3]
K8S = ROOT / "k8s"
OVERLAYS = ("single", "production")


def parsed(text: str) -> list[dict[str, Any]]:
    # libyaml's loader takes a tenth of the time of the one in Python.
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    return parsed(path.read_text())


@cache
def all_documents() -> list[tuple[Path, dict[str, Any]]]:
    return [(path, each) for path in sorted(K8S.rglob("*.yaml")) for each in documents(path)]


def of_kind(kind: str) -> dict[str, dict[str, Any]]:
    """Documents of a kind that are whole, by name; patches of overlays are not."""
    return {
        each["metadata"]["name"]: each
        for path, each in all_documents()
        if each["kind"] == kind and "overlays" not in path.parts
    }


def services() -> dict[str, dict[str, Any]]:
    """What runs our pods, by name."""
    found = of_kind("Deployment") | of_kind("StatefulSet")
    return {name: one for name, one in found.items() if name != "any"}


def rendered(overlay: str, folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What `kubectl apply -k` of the overlay applies, by kind and name."""
    kubectl = tools.find("kubectl")
    shutil.copytree(K8S, folder / "k8s", ignore=shutil.ignore_patterns("validate", "secrets.env", "reader.login"))
    subprocess.run([folder / "k8s" / "secrets.sh", overlay], check=True, capture_output=True)
    command = [kubectl, "kustomize", str(folder / "k8s" / "overlays" / overlay)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {(one["kind"], one["metadata"]["name"]): one for one in parsed(text)}


def env(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", sorted(K8S.rglob("*.env*")), ids=lambda path: str(path.relative_to(K8S)))
def test_every_setting_exists(path: Path) -> None:
    assert set(env(path)) <= {f"TICKPIPE_{name.upper()}" for name in Settings.model_fields}


def test_settings_are_understood_by_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for overlay in OVERLAYS:
        extra = K8S / "overlays" / overlay / "settings.env"
        for name, value in (env(K8S / "base" / "settings.env") | (env(extra) if extra.exists() else {})).items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        assert settings.kafka_bootstrap == "tickpipe-kafka-bootstrap:9092"


@pytest.mark.parametrize(("replication", "overlay"), [(1, "single"), (3, "production")])
def test_topics_are_those_the_services_would_create(replication: int, overlay: str) -> None:
    partitions = int((env(K8S / "base" / "settings.env"))["TICKPIPE_KAFKA_PARTITIONS"])
    wanted = topics(load_settings(kafka_partitions=partitions, kafka_replication=replication))
    found = of_kind("KafkaTopic")
    assert set(found) == {topic.name for topic in wanted}
    for topic in wanted:
        config = {key: str(value) for key, value in found[topic.name]["spec"]["config"].items()}
        if overlay == "production":
            config.pop("flush.ms", None)
        assert config == topic.config
        assert found[topic.name]["spec"]["partitions"] == partitions


def test_production_has_as_many_workers_at_most_as_partitions() -> None:
    settings = env(K8S / "overlays" / "production" / "settings.env")
    overlay = (K8S / "overlays" / "production" / "kustomization.yaml").read_text()
    patched = dict(re.findall(r"path: /spec/(\w+), value: (\d+)", overlay))
    assert patched == {
        "partitions": settings["TICKPIPE_KAFKA_PARTITIONS"],
        "replicas": settings["TICKPIPE_KAFKA_REPLICATION"],
    }
    scaled = of_kind("ScaledObject")["stream"]["spec"]
    assert str(scaled["maxReplicaCount"]) == settings["TICKPIPE_KAFKA_PARTITIONS"]
    assert scaled["triggers"][0]["metadata"]["consumerGroup"] == load_settings().stream_group


def test_probes_ask_paths_and_ports_that_the_services_serve() -> None:
    ports = {service.name: service.port for service in DECLARED}
    assert set(services()) == set(ports)
    probes = of_kind("Deployment")["any"]["spec"]["template"]["spec"]["containers"][0]
    assert probes["readinessProbe"]["httpGet"]["path"] == "/ready"
    for name, service in services().items():
        container = service["spec"]["template"]["spec"]["containers"][0]
        assert container["ports"] == [{"name": "http", "containerPort": ports[name]}]
        assert of_kind("Service")[name]["spec"]["ports"][0]["port"] == ports[name]
        assert name in of_kind("PodDisruptionBudget")


def test_services_reach_kafka_and_are_watched() -> None:
    """By labels that each of their pods and services has; the second comes from the base for all of them."""
    is_named = {"key": "app.kubernetes.io/component", "operator": "Exists"}
    ours = {"key": "app.kubernetes.io/part-of", "operator": "In", "values": ["tickpipe"]}
    policy = of_kind("NetworkPolicy")["services-to-kafka"]["spec"]
    assert policy["podSelector"]["matchExpressions"] == [is_named, ours]
    monitor = of_kind("ServiceMonitor")["tickpipe"]["spec"]
    assert monitor["selector"] == {"matchLabels": {ours["key"]: "tickpipe"}, "matchExpressions": [is_named]}
    [base] = documents(K8S / "base" / "kustomization.yaml")
    assert base["labels"] == [{"pairs": {ours["key"]: "tickpipe"}, "includeTemplates": True}]
    for name, service in services().items():
        labels = (service["spec"]["template"]["metadata"]["labels"], of_kind("Service")[name]["metadata"]["labels"])
        assert [one[is_named["key"]] for one in labels] == [name, name]


def test_one_archiver_has_the_volume() -> None:
    spec = of_kind("StatefulSet")["archive"]["spec"]
    assert spec["replicas"] == 1
    assert spec["serviceName"] in of_kind("Service")
    [claim], [container] = spec["volumeClaimTemplates"], spec["template"]["spec"]["containers"]
    [mount] = container["volumeMounts"]
    assert mount["name"] == claim["metadata"]["name"]
    assert container["env"] == [{"name": "TICKPIPE_ARCHIVE", "value": mount["mountPath"]}]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_volume_of_ticks_is_deleted_with_an_overlay(overlay: str, tmp_path: Path) -> None:
    found = rendered(overlay, tmp_path)

    assert not {kind for kind, _ in found} & {"Namespace", "PersistentVolume", "PersistentVolumeClaim"}
    policy = found["StatefulSet", "archive"]["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert found["Kafka", "tickpipe"]["spec"]["kafka"]["config"]["delete.topic.enable"] is False
    pools = [one["spec"] for (kind, _), one in found.items() if kind == "KafkaNodePool"]
    assert {volume["deleteClaim"] for pool in pools for volume in pool["storage"]["volumes"]} == {False}


def test_no_file_in_git_holds_a_secret() -> None:
    assert of_kind("Secret") == {}
    for path in K8S.rglob("secrets.env.example"):
        # Too short for the services to take them.
        assert env(path) == {"TICKPIPE_API_KEYS": '{"*":"CHANGE"}', "TICKPIPE_DASHBOARD_PASSWORD": "CHANGE"}


def test_the_dashboard_reads_by_a_role_of_its_own(tmp_path: Path) -> None:
    found = rendered("single", tmp_path)

    [container] = found["Deployment", "dashboard"]["spec"]["template"]["spec"]["containers"]
    names = {variable["name"]: variable for variable in container["env"]}
    assert "TICKPIPE_DATABASE_URL" not in names
    assert "tickpipe_reader@" in names["TICKPIPE_DASHBOARD_DATABASE_URL"]["value"]
    secret = names["PGPASSWORD"]["valueFrom"]["secretKeyRef"]["name"]
    [role] = found["Cluster", "tickpipe-db"]["spec"]["managed"]["roles"]
    assert ("Secret", secret) in found
    assert role["passwordSecret"]["name"] == secret


def rules(groups: list[dict[str, Any]], *, servers: bool) -> dict[str, dict[str, Any]]:
    return {
        rule.get("alert") or rule["record"]: rule
        for group in groups
        if (group["name"] == "servers") == servers
        for rule in group["rules"]
    }


def test_rules_are_those_of_compose() -> None:
    compose = documents(ROOT / "compose" / "prometheus" / "rules.yml")[0]["groups"]
    ours = of_kind("PrometheusRule")["tickpipe"]["spec"]["groups"]
    assert rules(ours, servers=False) == rules(compose, servers=False)
    # Other exporters watch the servers here, for the same alerts and runbook.
    servers, theirs = rules(ours, servers=True), rules(compose, servers=True)
    assert set(servers) == set(theirs) - {"ExporterDown"}
    for name, rule in servers.items():
        assert rule["annotations"]["runbook"] == theirs[name]["annotations"]["runbook"]


def test_the_image_is_tagged_with_the_projects_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    base = (K8S / "base" / "kustomization.yaml").read_text()
    assert re.findall(r"newTag: (\S+)", base) == [version]


def test_nothing_stands_in_the_way_of_another_apply() -> None:
    """A Job cannot be changed: `kubectl apply` with another image would fail."""
    assert of_kind("Job") == {}


def test_a_single_database_lets_its_node_be_drained() -> None:
    assert of_kind("Cluster")["tickpipe-db"]["spec"]["enablePDB"] is False
    [production] = documents(K8S / "overlays" / "production" / "database.yaml")
    assert production["spec"]["enablePDB"] is True


def test_every_overlay_has_one_way_in_over_tls() -> None:
    for overlay, component in (("single", "ingress"), ("production", "gateway")):
        used = documents(K8S / "overlays" / overlay / "kustomization.yaml")[0]["components"]
        assert [one for one in used if one.endswith(("ingress", "gateway"))] == [f"../../components/{component}"]
    assert of_kind("Ingress")["producer"]["spec"]["tls"]
    assert of_kind("HTTPRoute")["producer"]["spec"]["parentRefs"][0]["sectionName"] == "https"
