"""How the project's HTTP servers are served; import it only where uvicorn is installed."""

import sys
from typing import Any

import uvicorn

from runtime.addresses import asyncio_host
from runtime.connections import Connections, bounded_protocol
from runtime.health import Guard
from runtime.process import exit_on_stop_signal
from runtime.unread import reading_to_the_end

#: EAs send every second or so and reuse the connection (seconds).
KEEP_ALIVE_SECONDS = 75

#: Some hundred trading PCs, each with a few; an idle one holds some 20 kB.
MAX_CONNECTIONS = 4_096


def server_config(
    app: Any,
    host: str,
    port: int,
    *,
    graceful_seconds: int,
    extensions: bool = True,
    max_connections: int = MAX_CONNECTIONS,
    **options: Any,
) -> uvicorn.Config:
    """Plain HTTP without words of uvicorn's own: lines in logs and headers in answers are the application's.

    Args:
        app: an ASGI application.
        host: address to listen on; `::` is every address of both families.
        port: to listen on.
        graceful_seconds: requests under way get this long to finish.
        extensions: whether uvloop (not on Windows, which has none) and httptools are installed and used.
        max_connections: open at once, as far as the process may open files; one address may have half of them.
        options: of `uvicorn.Config`, in the place of what is chosen here.
    """
    chosen: dict[str, Any] = {
        "loop": "uvloop" if extensions and sys.platform != "win32" else "asyncio",
        "http": bounded_protocol(Connections(max_connections), extensions=extensions),
        "lifespan": "on",
        "ws": "none",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": graceful_seconds,
    }
    return uvicorn.Config(reading_to_the_end(app), host=asyncio_host(host), port=port, **chosen | options)


def run_server(server: uvicorn.Server, guard: Guard) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code: 1 when it could not start, another than 0 when a part failed.

    Raises:
        SystemExit: with that exit code, when a signal ended it.
    """
    exit_on_stop_signal(lambda: guard.exit_code)
    server.run()
    return guard.exit_code if server.started else 1
