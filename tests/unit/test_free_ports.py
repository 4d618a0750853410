"""Test processes that ask for ports at once get different ones, although nobody listens yet."""

import subprocess
import sys
from random import Random

from tests.ports import free_port

#: A process that prints ports and keeps them until its input ends; the same shuffle in each.
_ASK = "import random, sys; random.seed({seed}); from tests.ports import free_port; \
print(*(free_port() for _ in range(30)), flush=True); sys.stdin.read()"


def test_no_port_is_given_twice() -> None:
    command = [sys.executable, "-c", _ASK.format(seed=Random().random())]
    asking = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        given = [int(port) for one in asking if one.stdout for port in one.stdout.readline().split()]
        given += [free_port() for _ in range(30)]
    finally:
        for one in asking:
            one.communicate()
    assert len(given) == len(set(given)) == 120
