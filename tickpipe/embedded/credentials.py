"""The secrets of a stack, made at its first start and kept in its data directory."""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from tickpipe.embedded.files import read_json, write_json


@dataclass(frozen=True)
class Credentials:
    """The key of the producer's API, which may speak for any source, and the password of the database."""

    api_key: str = field(repr=False)
    database_password: str = field(repr=False)


def load_credentials(data_dir: Path) -> Credentials:
    """The credentials of the data directory; made and stored in `secrets.json`, mode 0600, when there are none."""
    path = data_dir / "secrets.json"
    stored = read_json(path)
    wanted = {name: stored.get(name) or secrets.token_urlsafe(24) for name in ("api_key", "database_password")}
    if wanted != stored:
        write_json(path, stored | wanted)
    return Credentials(**wanted)
