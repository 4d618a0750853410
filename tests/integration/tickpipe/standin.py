"""A service of ours as the stack sees it: answers `GET /ready` on the port of its environment, and nothing else.

`python standin.py KIND [stubborn]`; a stubborn one ignores SIGTERM.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    HTTPServer(("127.0.0.1", int(os.environ[f"TICKPIPE_{sys.argv[1].upper()}_PORT"])), _Ready).serve_forever()
