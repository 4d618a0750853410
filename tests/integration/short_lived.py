"""`python -m tests.integration.short_lived ARGUMENTS`: `tickpipe`, whose `up` starts a Kafka that compiles less.

A broker of a minute does not get back what its second compiler costs.
"""

import runpy
from functools import partial

from tickpipe.embedded import stack

if __name__ == "__main__":
    # A class by its name, of which `up` only asks to be made.
    stack.StackConfig = partial(stack.StackConfig, short_lived=True)  # type: ignore[assignment,misc]
    runpy.run_module("tickpipe", run_name="__main__")
