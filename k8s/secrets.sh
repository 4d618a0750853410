#!/usr/bin/env bash
# `k8s/secrets.sh single`: writes secrets.env and reader.login of the overlay with fresh secrets. What exists is left alone.
set -euo pipefail
overlay=$(cd "$(dirname "$0")/overlays/${1:?single or production}" && pwd)
umask 077
for example in "$overlay"/*.example; do
    file=${example%.example}
    if [ -e "$file" ]; then
        echo "$(basename "$file") exists and is left as it is."
        continue
    fi
    grep -v '^#' "$example" | while IFS= read -r line; do
        secret=$(head -c 24 /dev/urandom | base64 -w 0 | tr '+/' 'ab')
        printf '%s\n' "${line/CHANGE/$secret}"
    done > "$file.new"
    mv "$file.new" "$file"
    echo "Wrote $file."
done
echo "TICKPIPE_API_KEYS in secrets.env has the key for your EA."
