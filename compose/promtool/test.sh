#!/usr/bin/env bash
# Prometheus's own tool on the rules: their syntax, every alert firing and not firing, and the PromQL of the dashboards.
# A promtool on the PATH is taken; else Go builds one from source at the version of go.mod, which takes minutes the first
# time and is cached.
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if ! promtool=$(command -v promtool); then
    command -v go > /dev/null || { echo "Install promtool (Debian: prometheus), or Go 1.26 to build it." >&2; exit 1; }
    promtool=$work/promtool
    go build -C compose/promtool -o "$promtool" github.com/prometheus/prometheus/cmd/promtool
fi

"$promtool" check rules --lint=all --lint-fatal compose/prometheus/rules.yml compose/prometheus/compat.yml
"$promtool" test rules tests/compose/rules/*.test.yml

# Each expression of a panel as a recorded rule, with Grafana's variable in place of the range.
.venv/bin/python - "$work/panels.yml" << 'PYTHON'
import json
import sys
from pathlib import Path

rules = [
    {"record": f"panel:{len(path.stem)}:{number}:{index}", "expr": target["expr"].replace("$__rate_interval", "1m")}
    for path in sorted(Path("compose/grafana/dashboards").glob("*.json"))
    for number, panel in enumerate(json.loads(path.read_text())["panels"])
    for index, target in enumerate(panel["targets"])
    if "expr" in target
]
Path(sys.argv[1]).write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
PYTHON
"$promtool" check rules "$work/panels.yml"
