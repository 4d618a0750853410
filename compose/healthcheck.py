"""The image's health check: asks the service that runs as process 1 whether it is ready.

Runs with `python -I -S` and needs nothing but the standard library and `runtime/services.py` beside it. Exit code 0
when `/ready` answers 200 or when process 1 is no service (a command that ends by itself), 1 otherwise.
"""

import http.client
import os
import runpy
import sys
from itertools import pairwise
from pathlib import Path

#: Module of a service to the variable that sets its port, and the port without it.
_PORTS = {
    service.module: (f"TICKPIPE_{service.name.upper()}_PORT", service.port)
    for service in runpy.run_path(str(Path(__file__).with_name("services.py")))["DECLARED"]
}


def main() -> int:
    """The exit code for Docker."""
    # With an init process the service's own arguments follow the init's.
    arguments = Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0")
    module = next((after for flag, after in pairwise(arguments) if flag == "-m"), "")
    if module not in _PORTS:
        return 0
    variable, port = _PORTS[module]
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get(variable, port)), timeout=3)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        # Docker keeps what a check prints: `docker inspect` shows why a service is not ready.
        print(answer.read().decode(errors="replace"))
    except OSError as exc:
        print(exc)
        return 1
    return 0 if answer.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
