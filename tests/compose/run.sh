#!/usr/bin/env bash
# `make test-compose`: the deployment as users run it, on a machine that can reach no image registry. Installs the
# engine where it is missing, builds stand-ins for the images that the files name, brings the unchanged files up and
# tests them. Takes some eight minutes on two idle cores. Leaves behind: the engine's packages, and its images in the cache.
#
# The engine is one of the tests' own, also beside another. It builds without networks, then runs in a network namespace,
# and the tests with it, so that no rule of the firewall, no interface and no port of the machine is touched.
#
# TICKPIPE_TEST_STACK=containers   run the integration tests with Kafka and TimescaleDB in containers instead
# TICKPIPE_TEST_IMAGES=real   take the real images from their registry, and the engine that answers, instead
# TICKPIPE_TEST_CACHE=DIR     where the engine that this script starts keeps its images
# Arguments go to pytest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"

cache=${TICKPIPE_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tickpipe/compose-test}
work=$(mktemp -d)
engine_pid=

stop_engine() {
    [ -n "$engine_pid" ] || return 0
    kill "$engine_pid"
    wait "$engine_pid" || true
    engine_pid=
}

# What an engine would leave: rules and chains, interfaces, engines that still run.
traces() {
    # Without the counters and the times. Another's engine may run, and its rules are its own.
    { iptables-save; ip6tables-save; } 2>/dev/null | sed -E '/^#/d; s/ ?\[[0-9:]+\]//g'
    ip -brief link | cut -d ' ' -f 1
    pgrep -ax dockerd || true
}

end() {
    local code=$?
    set +e
    stop_engine 2>/dev/null
    if [ -e "$work/before" ] && ! traces | diff "$work/before" - >&2; then
        echo "The engine of the tests has left traces on this machine." >&2
        code=1
    fi
    rm -rf "$work"
    exit "$code"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Arguments: options of the engine; with `isolated` before them it has a network namespace of its own.
start_engine() {
    local isolated=()
    # shellcheck disable=SC2016  # for the shell in the namespace
    if [ "$1" = isolated ]; then
        isolated=(unshare --net --mount sh -c 'ip link set lo up && exec "$@"' sh)
        shift
    fi
    "${isolated[@]}" dockerd --data-root "$cache" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" \
        --host "$DOCKER_HOST" --bridge none "$@" >>"$work/dockerd.log" 2>&1 8>&- &
    engine_pid=$!
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return
        kill -0 "$engine_pid" 2>/dev/null || break
        sleep 1
    done
    cat "$work/dockerd.log" >&2
    exit 1
}

build() {
    if [ "${TICKPIPE_TEST_IMAGES:-standin}" = standin ]; then
        "$here/build_standins.sh" "$work"
    fi
    [ "${TICKPIPE_TEST_STACK:-}" != containers ] || return 0
    echo "Building the image of the services"
    docker build --quiet --network host --tag tickpipe:compose-test \
        --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)" .
    docker image inspect --format 'tickpipe: {{.Size}} bytes' tickpipe:compose-test
}

"$here/install_engine.sh"

in_namespace=()
if [ "${TICKPIPE_TEST_IMAGES:-standin}" = real ]; then
    docker info >/dev/null || { echo "TICKPIPE_TEST_IMAGES=real needs an engine that runs." >&2; exit 1; }
    build
else
    mkdir -p "$cache"
    exec 8>"$cache.lock"
    flock --nonblock 8 || { echo "waiting for another run of these tests" >&2; flock 8; }
    traces >"$work/before"
    export DOCKER_HOST="unix://$work/docker.sock"
    start_engine --iptables=false --ip6tables=false --ip-forward=false
    build
    stop_engine
    start_engine isolated
    in_namespace=(nsenter "--net=/proc/$engine_pid/ns/net")
fi

# Not exec: the engine is stopped afterwards.
if [ "${TICKPIPE_TEST_STACK:-}" = containers ]; then
    "${in_namespace[@]}" .venv/bin/pytest -p no:cacheprovider "${@:-tests/integration}"
else
    TICKPIPE_COMPOSE_TEST=1 TICKPIPE_IMAGE=tickpipe:compose-test \
        "${in_namespace[@]}" .venv/bin/pytest "$here" -p no:cacheprovider --timeout 600 --durations 15 "$@"
fi
