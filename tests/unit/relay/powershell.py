"""What the tests of the Windows scripts ask of a script's syntax tree."""

from collections.abc import Iterator
from functools import cache, cached_property
from typing import NamedTuple

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

_parser = Parser(Language(tree_sitter_powershell.language()))


class Command(NamedTuple):
    """One command of a script."""

    #: A cmdlet or a function; what is called with `&`, as it stands there.
    name: str
    is_called: bool
    #: Without the dash.
    parameters: list[str]
    #: The values, positional ones among them, as they stand there.
    values: list[str]
    #: The function that it stands in; empty outside of any.
    function: str
    line: int


class Script:
    """A parsed script."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._bytes = text.encode()
        self.root = _parser.parse(self._bytes).root_node

    def walk(self, kind: str, node: Node | None = None) -> Iterator[Node]:
        """The nodes of a kind, in the order of the text."""
        node = node or self.root
        if node.type == kind:
            yield node
        for child in node.children:
            yield from self.walk(kind, child)

    def source(self, node: Node) -> str:
        return self._bytes[node.start_byte : node.end_byte].decode()

    @property
    def faults(self) -> list[str]:
        """Where it does not parse."""
        return [f"line {node.start_point.row + 1}" for node in _all(self.root) if node.is_error or node.is_missing]

    @cached_property
    def functions(self) -> dict[str, list[str]]:
        """The parameters of each function."""
        found = {}
        for node in self.walk("function_statement"):
            (name,) = [self.source(child) for child in node.children if child.type == "function_name"]
            found[name] = [self.source(each).lstrip("$") for each in _parameters(self, node)]
        return found

    @cached_property
    def commands(self) -> list[Command]:
        return [self._command(node) for node in self.walk("command")]

    @property
    def environment(self) -> set[str]:
        """The environment's variables that it reads or sets."""
        variables = [self.source(node) for node in self.walk("variable")]
        return {name.split(":", 1)[1].rstrip("}") for name in variables if name.lower().startswith(("$env:", "${env:"))}

    def reach(self, node: Node) -> str:
        """The function that a node stands in."""
        above = node.parent
        while above is not None and above.type != "function_statement":
            above = above.parent
        if above is None:
            return ""
        return next(self.source(child) for child in above.children if child.type == "function_name")

    def _command(self, node: Node) -> Command:
        name, is_called, parameters, values = "", False, list[str](), list[str]()
        for child in node.children:
            if child.type in ("command_name", "command_name_expr"):
                name = self.source(child)
            elif child.type == "command_invokation_operator":
                is_called = True
            elif child.type == "command_elements":
                for element in child.children:
                    text = self.source(element)
                    if element.type == "command_parameter":
                        parameters.append(text.lstrip("-").rstrip(":"))
                    elif element.type != "command_argument_sep":
                        values.append(text)
        return Command(name, is_called, parameters, values, self.reach(node), node.start_point.row + 1)


@cache
def parsed(text: str) -> Script:
    """The script of a text, which many tests ask for."""
    return Script(text)


def _parameters(script: Script, function: Node) -> list[Node]:
    for block in script.walk("param_block", function):
        return [
            child
            for each in script.walk("script_parameter", block)
            for child in each.children
            if child.type == "variable"
        ]
    return []


def _all(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _all(child)
