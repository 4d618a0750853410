#!/usr/bin/env bash
# Stand-ins for the images that the Dockerfile and the compose files name, made of Debian 13's packages and of Kafka's
# jars from Maven Central. They carry the label tickpipe.standin and never replace an image that lacks it.
# Argument: a scratch folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$1
base=tickpipe-standin/debian:trixie-slim

if ! docker image inspect "$base" >/dev/null 2>&1; then
    echo "Building $base"
    # shellcheck disable=SC2016  # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(LABEL) $(SITE)' 'Created-By: Packages' | sed -n 's/^Debian //p' | head -1)
    debootstrap --variant=minbase trixie "$work/trixie" "$mirror" >"$work/debootstrap.log" 2>&1 \
        || { tail -20 "$work/debootstrap.log" >&2; exit 1; }
    # As in the real images that are called slim, neither now nor in what is installed later.
    printf 'path-exclude /usr/share/%s/*\n' doc info locale man >"$work/trixie/etc/dpkg/dpkg.cfg.d/slim"
    tar -C "$work/trixie" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
        --exclude='./usr/share/info/*' --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' -c . \
        | docker import --change 'LABEL tickpipe.standin=true' - "$base" >/dev/null
    rm -rf "$work/trixie"
fi

mkdir -p "$work/jars" "$work/certificates"
cp -L /etc/ssl/certs/ca-certificates.crt "$work/certificates/"
"$root/.venv/bin/python" - "$work/jars" <<'PYTHON'
import glob, shutil, sys
from tickpipe.embedded.jars import resolve_jars

for pattern in resolve_jars(print).class_path.split(":"):
    for jar in glob.glob(pattern):
        shutil.copy(jar, sys.argv[1])
PYTHON

# The name and tag under which the files ask for a repository.
named() {
    grep -ohE "[=-]$1:[A-Za-z0-9._-]+" "$root/Dockerfile" "$root/compose/compose.yaml" | head -1 | cut -c 2-
}

build() {
    local folder=$1 image
    image=$(named "$2")
    if docker image inspect "$image" >/dev/null 2>&1 \
        && [ "$(docker image inspect --format '{{index .Config.Labels "tickpipe.standin"}}' "$image")" != true ]; then
        echo "This engine has the real $image; run with TICKPIPE_TEST_IMAGES=real" >&2
        exit 1
    fi
    echo "Building a stand-in for $image"
    docker build --quiet --network host --tag "$image" --label tickpipe.standin=true \
        --build-context "jars=$work/jars" --build-context "certificates=$work/certificates" \
        "$here/standins/$folder" >/dev/null
}

build python python
build kafka apache/kafka
build timescaledb timescale/timescaledb
build caddy caddy
build prometheus prom/prometheus
build postgres-exporter prometheuscommunity/postgres-exporter
build node-exporter prom/node-exporter
