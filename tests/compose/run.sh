#!/usr/bin/env bash
# `make test-compose`: the deployment as users run it, on a machine that can reach no image registry. Installs the
# engine where it is missing, builds stand-ins for the images that the files name, brings the unchanged files up and
# tests them. Takes about six minutes the first time. Leaves behind: the engine's packages, and its images in the cache.
#
# TICKPIPE_TEST_STACK=containers   run the integration tests with Kafka and TimescaleDB in containers instead
# TICKPIPE_TEST_IMAGES=real   take the real images from their registry instead
# TICKPIPE_TEST_CACHE=DIR     where the engine that this script starts keeps its images
# Arguments go to pytest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"

cache=${TICKPIPE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tickpipe/compose-test}
work=$(mktemp -d)
engine_pid=

end() {
    local code=$?
    set +e
    if [ "${TICKPIPE_TEST_IMAGES:-standin}" = standin ] && [ -z "$engine_pid" ]; then
        # Somebody else's engine must not keep images that are not what their names say.
        docker image rm tickpipe:compose-test
        docker image ls --quiet --filter label=tickpipe.standin | xargs --no-run-if-empty docker image rm --force
    fi >/dev/null 2>&1
    if [ -n "$engine_pid" ]; then
        kill "$engine_pid"
        wait "$engine_pid"
        # An engine leaves its packet filter behind. Where another one runs or ran, the rules may be its own.
        if ! grep -q DOCKER "$work/filter" && ! pgrep -x dockerd >/dev/null; then
            iptables-restore <"$work/filter"
        fi
    fi
    rm -rf "$work"
    exit "$code"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$here/install_engine.sh"

if ! docker info >/dev/null 2>&1; then
    mkdir -p "$cache"
    export DOCKER_HOST="unix://$work/docker.sock"
    iptables-save >"$work/filter"
    dockerd --data-root "$cache" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" --host "$DOCKER_HOST" \
        --bridge none >"$work/dockerd.log" 2>&1 &
    engine_pid=$!
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && break
        kill -0 "$engine_pid" 2>/dev/null || { engine_pid=; break; }
        sleep 1
    done
    docker info >/dev/null 2>&1 || { cat "$work/dockerd.log" >&2; exit 1; }
fi

if [ "${TICKPIPE_TEST_IMAGES:-standin}" = standin ]; then
    "$here/build_standins.sh" "$work"
fi

if [ "${TICKPIPE_TEST_STACK:-}" = containers ]; then
    .venv/bin/pytest -p no:cacheprovider "${@:-tests/integration}"
    exit
fi

echo "Building the image of the services"
docker build --quiet --network host --tag tickpipe:compose-test \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" .
docker image inspect --format 'tickpipe: {{.Size}} bytes' tickpipe:compose-test

# Not exec: the engine is stopped afterwards.
TICKPIPE_COMPOSE_TEST=1 TICKPIPE_IMAGE=tickpipe:compose-test \
    .venv/bin/pytest "$here" -p no:cacheprovider --timeout 600 --durations 15 "$@"
