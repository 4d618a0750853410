#!/usr/bin/env bash
# Asks the broker for the cluster's metadata and succeeds when it lists itself: it accepts connections before it does,
# and a topic created in between fails. By hand, because Kafka's own tools start a Java machine for every question.
set -euo pipefail
exec 3<>/dev/tcp/127.0.0.1/9092
# Length 15; key 3 (Metadata), version 4, correlation id 1, no client id; no topics, none to be created.
printf '\x00\x00\x00\x0f\x00\x03\x00\x04\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00\x00' >&3
# Length, correlation id, throttle time, number of brokers: four bytes each.
answer=$(head -c 16 <&3 | od -An -v -tx1 | tr -d ' \n')
[ "${answer:8:8}" = 00000001 ] && [ "${#answer}" = 32 ] && [ "${answer:24:8}" != 00000000 ]
