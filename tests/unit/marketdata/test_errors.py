"""The tree of errors in the docstring is the tree of the classes."""

import inspect
import re

from marketdata import errors


def test_the_docstring_draws_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    parents = {0: "TickpipeError"}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^ {4}((?:│   |    )*)[├└]── (\w+) ", line):
            depth = len(found[1]) // 4
            drawn[found[2]] = parents[depth]
            parents[depth + 1] = found[2]

    defined = {
        name: one.__base__.__name__
        for name, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, errors.TickpipeError) and one is not errors.TickpipeError and one.__base__
    }
    assert drawn == defined


def test_every_error_says_what_the_reader_can_do() -> None:
    assert all(inspect.getdoc(one) for _, one in inspect.getmembers(errors, inspect.isclass))
