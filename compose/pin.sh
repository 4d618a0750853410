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
            # Of several platforms' manifests the index comes first.
            digest=$(docker buildx imagetools inspect --format '{{json .Manifest}}' "$image" |
                sed -nE 's/.*"digest": *"(sha256:[0-9a-f]{64})".*/\1/p' | head -n 1)
            [ -n "$digest" ] || { echo "The registry names no digest of $image." >&2; exit 1; }
            echo "${line%%:-*}=$image@$digest"
        done
)
umask 077
# All but our own, which make image names.
{ grep -vE '^TICKPIPE_[A-Z_]+_IMAGE=' .env; echo "$pinned"; } > .env.new
mv .env.new .env
echo "$pinned"
