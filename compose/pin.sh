#!/usr/bin/env bash
# `make pin`: has .env name every image of the compose file, and the base of our own, by tag and digest, as the registry
# has them now. Run again after an upgrade, it renews both.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -e .env ] || { echo "There is no .env; make env writes it." >&2; exit 1; }

pinned=$(
    grep -ohE '\$\{TICKPIPE_[A-Z_]*IMAGE:-[^}]+\}' compose/compose.yaml | sort -u | grep -v ':-tickpipe:' | tr -d '${}' |
        while IFS= read -r line; do
            image=${line#*:-}
            digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
            echo "${line%%:-*}=$image@$digest"
        done
)
umask 077
{ grep -vE '^TICKPIPE_(PYTHON|KAFKA|DATABASE|[A-Z_]+_EXPORTER|PROMETHEUS|GRAFANA)_IMAGE=' .env; echo "$pinned"; } > .env.new
mv .env.new .env
echo "$pinned"
