#!/usr/bin/env bash
# `k8s/secrets.sh single`: writes overlays/single/secrets.env with a fresh API key. One that exists is left alone.
set -euo pipefail
overlay=$(cd "$(dirname "$0")/overlays/${1:?single or production}" && pwd)
umask 077
if [ -e "$overlay/secrets.env" ]; then
    echo "secrets.env exists and is left as it is."
    exit 0
fi
key=$(head -c 24 /dev/urandom | base64 -w 0 | tr '+/' 'ab')
grep -v '^#' "$overlay/secrets.env.example" | sed "s/CHANGE/$key/" > "$overlay/secrets.env.new"
mv "$overlay/secrets.env.new" "$overlay/secrets.env"
echo "Wrote $overlay/secrets.env; the key in it is the one for your EA."
