#!/usr/bin/env bash
# `make env`: .env from .env.example, with a fresh random value for every example, and the volumes of the ticks. An
# existing .env is left alone: it holds the name and the passwords of existing volumes.
set -euo pipefail
cd "$(dirname "$0")/.."

# The volumes that `docker compose` must find, because it never makes or deletes them.
make_volumes() {
    local project volume others
    project=$(sed -n 's/^COMPOSE_PROJECT_NAME=//p' .env | tail -n 1)
    if ! docker info >/dev/null 2>&1; then
        echo "Docker does not answer here. Before the first start:"
        echo "docker volume create ${project}_kafka-data; docker volume create ${project}_archive-data"
        return
    fi
    # Of a deployment that is older than the archive as well.
    docker volume inspect "${project}_archive-data" >/dev/null 2>&1 || docker volume create "${project}_archive-data" >/dev/null
    volume=${project}_kafka-data
    if docker volume inspect "$volume" >/dev/null 2>&1; then
        return
    fi
    others=$(docker volume ls --quiet | grep '^tickpipe.*_kafka-data$' || true)
    docker volume create "$volume" >/dev/null
    echo "Made the volume $volume for the ticks; 'docker compose down -v' does not delete it."
    if [ -n "$others" ]; then
        echo "Other deployments' ticks are on this machine:" $others
        echo "To go on with one of them, put its .env here instead of this one."
    fi
}

if [ -e .env ]; then
    echo ".env exists and is left as it is."
    make_volumes
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
        # Project names have lower-case letters, digits, - and _.
        COMPOSE_PROJECT_NAME=change-me) echo "${line%%=*}=tickpipe-$(head -c 3 /dev/urandom | od -An -tx1 | tr -d ' ')" ;;
        TICKPIPE_KAFKA_CLUSTER_ID=change-me) echo "${line%%=*}=$(random 16)" ;;
        *=change-me) echo "${line%%=*}=$(random 24)" ;;
        *) printf '%s\n' "$line" ;;
    esac
done < .env.example > .env.new
mv .env.new .env
echo "Wrote .env with fresh secrets. TICKPIPE_API_KEY in it is the key for your EA."
make_volumes
