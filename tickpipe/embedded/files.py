"""Small JSON files of the stack, the secrets among them: written whole or not at all, readable by their owner only."""

import json
import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; empty when the file is missing, torn or not an object."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: object) -> None:
    """Replace the file in one step, mode 0600: a reader sees the old content or the new."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
