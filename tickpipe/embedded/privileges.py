"""Another user for a server that refuses to run as root, which PostgreSQL does."""

import grp
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from marketdata.errors import StackError

#: Owns nothing on any distribution, and has the passwd entry that initdb asks for.
_UNPRIVILEGED_USER = "nobody"


@dataclass(frozen=True)
class Privileges:
    """Who a server runs as: `setpriv_options` make it so, `own` gives it a folder."""

    setpriv_options: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    def own(self, path: Path) -> None:
        """Give the file or folder to the server's user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def unprivileged(must_reach: Iterable[Path]) -> Privileges:
    """The current user, or `nobody` when that is root.

    `must_reach` are paths that the server needs and others may be barred from, such as a data directory under `/root`.
    If there is one, the server keeps a single capability, CAP_DAC_OVERRIDE, to get there.

    Raises:
        StackError: when there is no other user to be.
    """
    if os.geteuid() != 0:
        return Privileges()
    try:
        user = pwd.getpwnam(_UNPRIVILEGED_USER)
    except KeyError:
        raise StackError(
            f"PostgreSQL does not run as root and this machine has no user {_UNPRIVILEGED_USER!r}; "
            f"start as an ordinary user"
        ) from None
    group = grp.getgrgid(user.pw_gid)
    options = [f"--reuid={user.pw_uid}", f"--regid={group.gr_gid}", "--clear-groups"]
    if all(open_to_all(path) for path in must_reach):
        options.append("--inh-caps=-all")
    else:
        kept = "-all,+dac_override"
        options += [f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"]
        # access(2), with which PostgreSQL checks its own binary, ignores the capabilities of whoever is not root
        # unless this is set.
        options.append("--securebits=+no_setuid_fixup")
    return Privileges(tuple(options), user.pw_uid, group.gr_gid)


def open_to_all(path: Path) -> bool:
    """Whether any user can reach the path: every folder above it can be passed by others."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents)
