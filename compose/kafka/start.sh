#!/usr/bin/env bash
# Starts Kafka once its volume has room. After a crash a start rewrites the indexes, also that of the metadata log; when
# the disk has no room for it, Kafka takes that log for damaged and empties it, and every topic is gone.
set -euo pipefail
least=$((64 * 1024 * 1024))
said=
trap 'exit 143' TERM
while :; do
    # Blocks that are left to this user, and the bytes of one.
    read -r blocks size < <(stat -f -c '%a %S' "$KAFKA_LOG_DIRS")
    [ $((blocks * size)) -lt $least ] || break
    [ -n "$said" ] || echo "ERROR Kafka is not started: its volume has $((blocks * size / 1024 / 1024)) MB free, and" \
        "without 64 MB a start can lose every topic. Make room on the disk of the engine; it starts by itself then"
    said=yes
    sleep 2 &
    wait $!
done
trap - TERM
exec "${@:-/etc/kafka/docker/run}"
