"""The overlays on a real API server: applied, applied again, changed and deleted; and its admission of their pods."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.cluster import ROOT, Cluster, Overlay

pytestmark = [pytest.mark.full, pytest.mark.long(90)]

OVERLAYS = ("single", "production")

_NAMESPACE = "tickpipe"

#: The kinds that run our pods, as kubectl names several.
_SERVICES = "deployments,statefulsets"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.apply_text((ROOT / "k8s" / "namespace.yaml").read_text())
        yield cluster


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest, tmp_path: Path) -> Overlay:
    return Overlay(request.param, tmp_path / "k8s")


def applied(cluster: Cluster, overlay: Overlay, *arguments: str) -> dict[str, str]:
    """What became of each object, by kind and name."""
    told = cluster.apply_text(overlay.text(), *arguments).stdout
    return dict(line.split(" ", 1) for line in told.splitlines())


def changed(cluster: Cluster, overlay: Overlay) -> set[str]:
    """What another apply did not leave as it was; kubectl says `configured` of some that it did."""
    before = versions(cluster, overlay)
    applied(cluster, overlay)
    after = versions(cluster, overlay)
    return {name for name in before | after if before.get(name) != after.get(name)}


def versions(cluster: Cluster, overlay: Overlay) -> dict[str, str]:
    found = cluster.get(kinds(overlay), "-n", _NAMESPACE)["items"]
    return {f"{each['kind']} {each['metadata']['name']}": each["metadata"]["resourceVersion"] for each in found}


def kinds(overlay: Overlay) -> str:
    return ",".join(sorted({document["kind"] for document in overlay.documents()}))


def test_the_server_would_take_every_document_and_refuses_a_field_that_is_none(
    cluster: Cluster, overlay: Overlay
) -> None:
    told = applied(cluster, overlay, "--dry-run=server")
    assert len(told) == len(overlay.documents())
    assert all(outcome.endswith("(server dry run)") for outcome in told.values())

    sink = desired(overlay, "sink")
    sink["spec"]["replicaz"] = 1
    refused = cluster.apply_text(yaml.safe_dump(sink), "--dry-run=server", check=False)
    assert refused.returncode != 0
    assert 'unknown field "spec.replicaz"' in refused.stderr


def test_applied_again_with_another_image_upgraded_and_deleted(cluster: Cluster, overlay: Overlay) -> None:
    original = overlay.text()
    try:
        assert set(applied(cluster, overlay).values()) == {"created"}
        assert changed(cluster, overlay) == set()

        overlay.change(images=[{"name": "tickpipe", "newName": "registry.example.com/tickpipe", "newTag": "0.2.0"}])
        rolled = changed(cluster, overlay)
        services = cluster.get(_SERVICES, "-n", _NAMESPACE)["items"]
        assert rolled == {f"{each['kind']} {each['metadata']['name']}" for each in services}
        images = {container["image"] for each in services for container in containers(each)}
        assert images == {"registry.example.com/tickpipe:0.2.0"}

        assert_settings_roll_the_pods(cluster, overlay)
    finally:
        # What names with the hash of former settings belong to stays until it is deleted as well.
        for text in (overlay.text(), original):
            cluster.run("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=text)
    ours = ("-n", _NAMESPACE, "-l", "app.kubernetes.io/part-of")
    assert cluster.run("get", kinds(overlay), "-o", "name", *ours).stdout == ""


def assert_settings_roll_the_pods(cluster: Cluster, overlay: Overlay) -> None:
    """A setting makes another ConfigMap, whose name every pod template has; numbers of pods that scale stay."""
    before = {each["metadata"]["name"]: each for each in cluster.get(_SERVICES, "-n", _NAMESPACE)["items"]}
    scaled = [name for name, each in before.items() if "replicas" not in desired(overlay, name)["spec"]]
    for name in scaled:
        cluster.run("scale", "deployment", name, "--replicas=3", "-n", _NAMESPACE)
    overlay.set("TICKPIPE_CHECK_DAYS", "7")
    told = applied(cluster, overlay)
    assert [what for name, what in told.items() if name.startswith("configmap/tickpipe-settings")] == ["created"]
    after = {each["metadata"]["name"]: each for each in cluster.get(_SERVICES, "-n", _NAMESPACE)["items"]}
    for name, each in after.items():
        assert each["metadata"]["generation"] > before[name]["metadata"]["generation"]
        assert each["spec"]["replicas"] == (3 if name in scaled else before[name]["spec"]["replicas"])


def desired(overlay: Overlay, name: str) -> dict[str, Any]:
    (found,) = (
        document for document in overlay.documents()
        if document["kind"] in ("Deployment", "StatefulSet") and document["metadata"]["name"] == name
    )  # fmt: skip
    return found


def containers(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    spec = deployment["spec"]["template"]["spec"]
    return [*spec.get("initContainers", []), *spec["containers"]]


def test_our_pods_meet_the_restricted_standard(cluster: Cluster, overlay: Overlay) -> None:
    strict = f"{_NAMESPACE}-restricted"
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tickpipe", "namespace": strict}}
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": strict, "labels": label}}
    cluster.apply_text(yaml.safe_dump_all([namespace, account]))
    services = [document for document in overlay.documents() if document["kind"] in ("Deployment", "StatefulSet")]
    assert len(services) == 5
    for service in services:
        template = service["spec"]["template"]
        # As the controller of stateful sets does.
        template["spec"]["volumes"] += [
            {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": "any"}}
            for claim in service["spec"].get("volumeClaimTemplates", [])
        ]
        pod = {
            "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
            "metadata": {"name": service["metadata"]["name"], "namespace": strict},
        }  # fmt: skip
        cluster.apply_text(yaml.safe_dump(pod), "--dry-run=server")

        template["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        refused = cluster.apply_text(yaml.safe_dump(pod), "--dry-run=server", check=False)
        assert refused.returncode != 0
        assert "allowPrivilegeEscalation != false" in refused.stderr


def test_the_services_account_may_do_nothing_with_the_cluster(cluster: Cluster, overlay: Overlay) -> None:
    present = {document["kind"] for document in overlay.documents()}
    assert not present & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    user = f"--as=system:serviceaccount:{_NAMESPACE}:tickpipe"
    for verb, what in (("get", "secrets"), ("list", "pods"), ("create", "pods"), ("get", "configmaps")):
        asked = cluster.run("auth", "can-i", verb, what, "-n", _NAMESPACE, user, check=False)
        assert (asked.stdout.strip(), asked.returncode) == ("no", 1)
