#!/usr/bin/env bash
# Runs a class of Kafka with the variables that Kafka's own script of this name honours.
set -euo pipefail
base=/opt/kafka
if [ "${1:-}" = -name ]; then
    shift 2
fi
if [ "${1:-}" = -loggc ]; then
    shift
fi
logs=${LOG_DIR:-$base/logs}
mkdir -p "$logs"
# Several options in one variable, as in Kafka's own script.
# shellcheck disable=SC2206
options=(${KAFKA_HEAP_OPTS:--Xmx256M} ${KAFKA_JVM_PERFORMANCE_OPTS:-} "-Dkafka.logs.dir=$logs"
    ${KAFKA_LOG4J_OPTS:-"-Dlog4j2.configurationFile=$base/config/tools-log4j2.yaml"} ${KAFKA_OPTS:-})
# An archive of classes counts for the jars in the order in which it was made. A short life is not worth compiling for.
jars=("$base"/libs/*.jar)
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "${options[@]}" -cp "$(IFS=:; echo "${jars[*]}")" "$@"
