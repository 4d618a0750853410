#!/usr/bin/env bash
# Docker's engine, buildx and Compose v2 from Debian's packages, where something of it is missing.
set -euo pipefail

has_all() {
    command -v dockerd >/dev/null && docker buildx version >/dev/null 2>&1 \
        && docker compose version --short 2>/dev/null | grep -qE '^v?[2-9]' && command -v debootstrap >/dev/null
}

has_all && exit 0
# With real images a running engine and Compose do.
if [ "${TICKPIPE_TEST_IMAGES:-}" = real ] && docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
    exit 0
fi

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Docker with buildx and Compose v2, and debootstrap, are needed; root on Debian may have them installed." >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
packages=(docker.io docker-cli docker-buildx docker-compose debootstrap iptables iproute2 ca-certificates)
extra=/etc/apt/sources.list.d/tickpipe-test-engine.sources
pin=/etc/apt/preferences.d/tickpipe-test-engine
trap 'rm -f "$extra" "$pin"' EXIT

apt-get update -q
# Debian 12 has no Compose v2. Those of Debian 13 need no newer libc; the pin keeps everything else of it away.
if ! apt-cache show docker-buildx >/dev/null 2>&1; then
    # shellcheck disable=SC2016  # apt's own placeholders
    mirror=$(apt-get indextargets --format '$(LABEL) $(SITE)' 'Created-By: Packages' | sed -n 's/^Debian //p' | head -1)
    cat >"$extra" <<SOURCES
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
    cat >"$pin" <<PIN
Package: *
Pin: release n=trixie
Pin-Priority: 50

Package: docker.io docker-cli docker-buildx docker-compose
Pin: release n=trixie
Pin-Priority: 600
PIN
    apt-get update -q
fi
# The packages try to start a service, which the machine may not allow; this script starts the engine itself.
apt-get install -qy --no-install-recommends "${packages[@]}"
has_all
