#!/usr/bin/env bash
# `k8s/secrets.sh single`: writes overlays/single/secrets.env with fresh secrets. One that exists is left alone.
set -euo pipefail
overlay=$(cd "$(dirname "$0")/overlays/${1:?single or production}" && pwd)
umask 077
if [ -e "$overlay/secrets.env" ]; then
    echo "secrets.env exists and is left as it is."
    exit 0
fi
grep -v '^#' "$overlay/secrets.env.example" | while IFS= read -r line; do
    secret=$(head -c 24 /dev/urandom | base64 -w 0 | tr '+/' 'ab')
    printf '%s\n' "${line/CHANGE/$secret}"
done > "$overlay/secrets.env.new"
mv "$overlay/secrets.env.new" "$overlay/secrets.env"
echo "Wrote $overlay/secrets.env; TICKPIPE_API_KEYS in it has the key for your EA."
