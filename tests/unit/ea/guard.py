"""What MetaEditor would refuse and a C++ compiler takes: rules over the syntax trees of the EA's sources."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import tree_sitter_cpp
from tree_sitter import Language, Node, Parser

from tests.integration.ea.translation import translated
from tests.unit.ea.mql5 import (
    BUILT_INS,
    HANDLERS,
    LONGEST_NAME,
    NODE_KINDS,
    NUMBERS,
    REFERENCES,
    RESERVED,
    SLOW,
    STRUCTURES,
    TYPES,
)

_PARSER = Parser(Language(tree_sitter_cpp.language()))

Trees = Mapping[str, Node]


def parsed(source: str) -> Node:
    """The syntax tree of MQL5 as C++ (tests/integration/ea/translation.py)."""
    return _PARSER.parse(translated(source).encode()).root_node


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def text_of(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode()


def field(node: Node, name: str) -> str:
    return text_of(node.child_by_field_name(name))


def of_kind(trees: Iterable[Node], *kinds: str) -> list[Node]:
    return [node for tree in trees for node in nodes(tree) if node.type in kinds]


def _begins_with_two_texts(node: Node) -> bool:
    left, right = (node.child_by_field_name(side) for side in ("left", "right"))
    is_text = right is not None and (right.type == "string_literal" or text_of(right).isupper())
    return left is not None and left.type == "string_literal" and is_text


#: What no list of node kinds tells: which nodes of a kind only C++ has.
ONLY_CPP: Final[dict[str, Callable[[Node], bool]]] = {
    "a template": lambda node: node.type == "template_type" and field(node, "name") != "Array",
    "a type": lambda node: node.type in ("primitive_type", "sized_type_specifier") and text_of(node) not in TYPES,
    "a reference that is no parameter": lambda node: (
        node.type == "reference_declarator" and (node.parent is None or node.parent.type != "parameter_declaration")
    ),
    "an array by value": lambda node: (
        node.type == "array_declarator" and node.parent is not None and node.parent.type == "parameter_declaration"
    ),
    "an arrow": lambda node: node.type == "field_expression" and field(node, "operator") == "->",
    "a member initialised in place": lambda node: (
        node.type == "field_declaration" and node.child_by_field_name("default_value") is not None
    ),
    "an initialiser without =": lambda node: (
        node.type == "init_declarator" and "=" not in [child.type for child in node.children]
    ),
    "a number": lambda node: (
        node.type == "number_literal" and not re.fullmatch(r"0x[0-9A-Fa-f]+|-?\d+(\.\d+)?", text_of(node))
    ),
    "a sum that begins with two texts": lambda node: (
        node.type == "binary_expression" and field(node, "operator") == "+" and _begins_with_two_texts(node)
    ),
    "a name that MQL5 reserves, or that is too long": lambda node: (
        node.type in ("identifier", "field_identifier", "type_identifier")
        and (text_of(node) in RESERVED or len(text_of(node)) > LONGEST_NAME)
    ),
}


def only_cpp(node: Node) -> str:
    """Why a node is not MQL5; empty when it is."""
    if node.type == "ERROR" or node.is_missing:
        return "no program"
    if node.is_named and node.type not in NODE_KINDS:
        return node.type
    return next((why for why, is_found in ONLY_CPP.items() if is_found(node)), "")


def defined(trees: Iterable[Node]) -> set[str]:
    """Functions, methods, types, variables and constants of the program."""
    names = set()
    for node in (node for tree in trees for node in nodes(tree)):
        if node.type in ("function_declarator", "init_declarator", "array_declarator"):
            names.add(field(node, "declarator"))
        elif node.type.endswith("_specifier") or node.type in ("preproc_def", "enumerator"):
            names.add(field(node, "name"))
    return names


def calls(trees: Iterable[Node]) -> Iterator[tuple[str, list[Node]]]:
    """The name and the arguments of each call."""
    for node in of_kind(trees, "call_expression"):
        function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        # `(datetime)(x)` is a cast, though C++ could call it as well.
        if function is not None and arguments is not None and function.type != "parenthesized_expression":
            name = field(function, "field") if function.type == "field_expression" else text_of(function)
            yield name, arguments.named_children


def unknown_calls(trees: Trees) -> list[str]:
    """Calls of what neither the program nor MQL5 has, or with too few or too many arguments."""
    own, found = defined(trees.values()), []
    for name, arguments in calls(trees.values()):
        least, most = BUILT_INS.get(name, (0, -1))
        if name not in own and not least <= len(arguments) <= most:
            found.append(f"{name} with {len(arguments)} arguments")
    return found


def structures_by_value(trees: Trees) -> list[str]:
    """Parameters that are structures or objects, which MQL5 only passes by reference."""
    kinds = ("struct_specifier", "class_specifier", "union_specifier")
    structures = {field(node, "name") for node in of_kind(trees.values(), *kinds)} | STRUCTURES
    return [
        text_of(node)
        for node in of_kind(trees.values(), "parameter_declaration")
        if field(node, "type") in structures and "&" not in text_of(node)
    ]


def _references(function: Node) -> list[bool]:
    parameters = function.child_by_field_name("parameters")
    return [] if parameters is None else ["&" in text_of(each) for each in parameters.named_children]


def temporaries(trees: Trees) -> list[str]:
    """Arguments that are no variables, where MQL5 expects one: the parameter is a reference, constant or not."""
    own: dict[tuple[str, int], list[list[bool]]] = {}
    for function in of_kind(trees.values(), "function_declarator"):
        references = _references(function)
        own.setdefault((field(function, "declarator"), len(references)), []).append(references)
    found = []
    for name, arguments in calls(trees.values()):
        known = own.get((name, len(arguments)))
        for place, argument in enumerate(arguments):
            by_reference = place in REFERENCES.get(name, ()) if known is None else all(each[place] for each in known)
            if by_reference and argument.type not in ("identifier", "field_expression", "subscript_expression"):
                found.append(f"{name}: {text_of(argument)}")
    return found


def changed_inputs(trees: Trees, inputs: Iterable[str]) -> list[str]:
    """Assignments to inputs, which are constants."""
    names = set(inputs)
    return [
        text_of(node)
        for node in of_kind(trees.values(), "assignment_expression", "update_expression")
        if field(node, "left") in names or field(node, "argument") in names
    ]


def wrong_handlers(trees: Trees) -> list[str]:
    """Functions that have the name of an event and not its parameters: the terminal never calls them."""
    return [
        text_of(node).partition("{")[0].strip()
        for node in of_kind(trees.values(), "function_definition")
        if (name := field(node.child_by_field_name("declarator") or node, "declarator")) in HANDLERS
        and re.sub(r"\s*\{.*", "", text_of(node), flags=re.S) != HANDLERS[name]
    ]


def missing_includes(trees: Trees, sources: Mapping[str, str]) -> list[str]:
    """Names that a file uses of another one that it does not include, itself or through what it includes."""
    included = {name: set(re.findall(r'^#include "([\w.]+)"', text, re.M)) for name, text in sources.items()}
    for _ in included:
        for name, files in included.items():
            included[name] = files.union(*(included[each] for each in files if each in included))
    home: dict[str, set[str]] = {}
    for file, tree in trees.items():
        top = set(tree.children) | {child for part in tree.children for child in part.children}
        for node in top:
            declarator = node.child_by_field_name("declarator")
            name = field(node, "name") or ("" if declarator is None else field(declarator, "declarator"))
            if name:
                home.setdefault(name, set()).add(file)
    return [
        f"{file}: {name}"
        for file, tree in trees.items()
        for name in sorted({text_of(node) for node in nodes(tree) if node.type in ("identifier", "type_identifier")})
        if name in home and not home[name] & ({file} | included[file])
    ]


def idle_functions(trees: Trees) -> list[str]:
    """Functions that nobody calls."""
    used = {name for name, _ in calls(trees.values())}
    names = {field(node, "declarator") for node in of_kind(trees.values(), "function_declarator")}
    types = {field(node, "name") for node in of_kind(trees.values(), "struct_specifier", "class_specifier")}
    return sorted(names - used - types - set(HANDLERS))


def fields_of_answers(trees: Trees) -> list[str]:
    """Members of what a function answers: MetaEditor may want a variable before the point."""
    return [
        text_of(node)
        for node in of_kind(trees.values(), "field_expression")
        if (argument := node.child_by_field_name("argument")) is not None and argument.type == "call_expression"
    ]


def endless_loops(trees: Trees) -> list[str]:
    """Loops that ask the terminal or the disk for something each time, and do not look whether the user stops them."""
    return [
        text_of(node).partition("{")[0].strip()
        for node in of_kind(trees.values(), "for_statement", "while_statement", "do_statement")
        if (called := {name for name, _ in calls([node])}) & SLOW and "IsStopped" not in called
    ]


def reused_inputs(trees: Trees, inputs: Iterable[str]) -> list[str]:
    """Functions, parameters and variables with the name of an input, which they hide."""
    names = set(inputs)
    found = [
        text_of(node.child_by_field_name("declarator"))
        for node in of_kind(
            trees.values(), "function_declarator", "parameter_declaration", "field_declaration", "init_declarator"
        )
    ]
    # Where the inputs themselves are among the files, each is found once.
    themselves = 1 if names <= set(found) else 0
    return sorted(name for name in names if found.count(name) > themselves)


def _is_number(node: Node, types: Mapping[str, set[str]]) -> bool:
    if node.type == "number_literal":
        return True
    name = text_of(node) if node.type == "identifier" else ""
    if node.type == "call_expression":
        function = node.child_by_field_name("function")
        name = "" if function is None else field(function, "field") or text_of(function)
    return bool(types.get(name)) and types[name] <= NUMBERS


def texts_with_numbers(trees: Trees) -> list[str]:
    """Sums of a text and a number, which C++ takes for a place in the text."""
    types: dict[str, set[str]] = {}
    for node in of_kind(
        trees.values(), "declaration", "field_declaration", "parameter_declaration", "function_definition"
    ):
        for part in node.children_by_field_name("declarator"):
            name = field(part, "declarator") or text_of(part)
            types.setdefault(name, set()).add(field(node, "type"))
    found = []
    for node in of_kind(trees.values(), "binary_expression"):
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if field(node, "operator") != "+" or left is None or right is None:
            continue
        if (left.type == "string_literal" and _is_number(right, types)) or (
            right.type == "string_literal" and _is_number(left, types)
        ):
            found.append(text_of(node))
    return found


def wrong_formats(trees: Trees) -> list[str]:
    """Calls of StringFormat with more or fewer arguments than its text has places."""
    return [
        text_of(arguments[0])
        for name, arguments in calls(trees.values())
        if name == "StringFormat"
        and len(re.findall(r"%[^%]", text_of(arguments[0]).replace("%%", ""))) != len(arguments) - 1
    ]
