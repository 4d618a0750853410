#!/usr/bin/env bash
# `make env`: .env from .env.example, with a fresh random value for every example. An existing .env is left alone: it
# holds the passwords of existing volumes.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -e .env ]; then
    echo ".env exists and is left as it is."
    exit 0
fi

# Letters, digits, - and _; never a - in front, which tools would take for an option.
random() {
    local value
    while value=$(head -c "$1" /dev/urandom | base64 -w 0 | tr '+/' '-_' | tr -d '='); [[ $value == -* ]]; do :; done
    printf %s "$value"
}

umask 077
trap 'rm -f .env.new' EXIT
while IFS= read -r line; do
    case $line in
        TICKPIPE_KAFKA_CLUSTER_ID=change-me) echo "${line%%=*}=$(random 16)" ;;
        *=change-me) echo "${line%%=*}=$(random 24)" ;;
        *) printf '%s\n' "$line" ;;
    esac
done < .env.example > .env.new
mv .env.new .env
echo "Wrote .env with fresh secrets. TICKPIPE_API_KEY in it is the key for your EA."
