"""The EA's sources keep to MQL5: the C++ compiler of the other tests takes more than MetaEditor does."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import tree_sitter_cpp
from tree_sitter import Language, Node, Parser

from tests.integration.ea.translation import translated
from tests.unit.ea.mql5 import BUILT_INS, CONSTANTS, NODE_KINDS, TYPES

_FOLDER = Path(__file__).parents[3] / "ea"
SOURCES = sorted([*_FOLDER.glob("*.mqh"), *_FOLDER.glob("*.mq5")])

_PARSER = Parser(Language(tree_sitter_cpp.language()))


def parsed(source: str) -> Node:
    """The syntax tree of MQL5 as C++ (tests/integration/ea/translation.py)."""
    return _PARSER.parse(translated(source).encode()).root_node


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def text_of(node: Node | None) -> str:
    return "" if node is None or node.text is None else node.text.decode()


def _begins_with_two_texts(node: Node) -> bool:
    left, right = (node.child_by_field_name(side) for side in ("left", "right"))
    is_text = right is not None and (right.type == "string_literal" or text_of(right).isupper())
    return left is not None and left.type == "string_literal" and is_text


#: What no list of node kinds tells: which nodes of a kind only C++ has.
ONLY_CPP: dict[str, Callable[[Node], bool]] = {
    "a template": lambda node: node.type == "template_type" and text_of(node.child_by_field_name("name")) != "Array",
    "a type": lambda node: node.type in ("primitive_type", "sized_type_specifier") and text_of(node) not in TYPES,
    "a reference that is no parameter": lambda node: (
        node.type == "reference_declarator" and (node.parent is None or node.parent.type != "parameter_declaration")
    ),
    "an arrow": lambda node: node.type == "field_expression" and text_of(node.child_by_field_name("operator")) == "->",
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
        node.type == "binary_expression"
        and text_of(node.child_by_field_name("operator")) == "+"
        and _begins_with_two_texts(node)
    ),
}


def only_cpp(node: Node) -> str:
    """Why a node is not MQL5; empty when it is."""
    if node.type == "ERROR" or node.is_missing:
        return "no program"
    if node.is_named and node.type not in NODE_KINDS:
        return node.type
    return next((why for why, is_found in ONLY_CPP.items() if is_found(node)), "")


def _trees() -> dict[str, Node]:
    return {path.name: parsed(path.read_text(encoding="utf-8-sig")) for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_it_has_nothing_that_only_cpp_has(path: Path) -> None:
    source = path.read_text(encoding="utf-8-sig")
    assert "Array<" not in source
    found = [(node.start_point.row + 1, text_of(node)[:60], only_cpp(node)) for node in nodes(parsed(source))]
    assert [where for where in found if where[2]] == []


@pytest.mark.parametrize(
    "line",
    [
        "a->b();", "A::b();", "auto x = 1;", "char *text;", "for(int x : all) f();", "Entry &entry = entries[0];",
        'text = "" "";', 'text = "" + VERSION;', "Header header{};", "unsigned int x = 1;",
        "x = [](int y) { return y; };",
        "try { f(); } catch(int x) {}", "throw 1;", "std::vector<int> x;", "size_t x = 1;", "x = 1'000;", "x = 1UL;",
        "delete x;", "x = nullptr;", "static_assert(true);", "goto out;", "int x = y", "using A = int;",
    ],
)  # fmt: skip
def test_what_only_cpp_has_is_found(line: str) -> None:
    assert [node for node in nodes(parsed(f"void f() {{\n    {line}\n}}\n")) if only_cpp(node)]


def test_a_member_initialised_in_place_is_found() -> None:
    assert [node for node in nodes(parsed("class A {\n    int m_count = 0;\n};\n")) if only_cpp(node)]


def defined(trees: Iterable[Node]) -> set[str]:
    """Functions, methods, types, variables and constants of the program."""
    names = set()
    for node in (node for tree in trees for node in nodes(tree)):
        if node.type in ("function_declarator", "init_declarator", "array_declarator"):
            names.add(text_of(node.child_by_field_name("declarator")))
        elif node.type.endswith("_specifier") or node.type in ("preproc_def", "enumerator"):
            names.add(text_of(node.child_by_field_name("name")))
    return names


def unknown_calls(trees: list[Node]) -> list[str]:
    """Calls of what neither the program nor MQL5 has, or with too few or too many arguments."""
    own, found = defined(trees), []
    for node in (node for tree in trees for node in nodes(tree) if node.type == "call_expression"):
        function, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if function is None or arguments is None:
            continue
        if function.type == "field_expression":
            name = text_of(function.child_by_field_name("field"))
        else:
            name = text_of(function)
        count = len(arguments.named_children)
        least, most = BUILT_INS.get(name, (0, -1))
        # `(datetime)(x)` is a cast, though C++ could call it as well.
        if function.type != "parenthesized_expression" and name not in own and not least <= count <= most:
            found.append(f"{name} with {count} arguments")
    return found


def test_every_call_is_of_a_function_that_mql5_has_with_as_many_arguments() -> None:
    assert unknown_calls(list(_trees().values())) == []


@pytest.mark.parametrize("call", ["StringLength(x)", "SymbolSelect(x)", "TimeGMT(1, 2)", "x.NoSuch()"])
def test_a_call_that_mql5_does_not_have_is_found(call: str) -> None:
    assert unknown_calls([parsed(f"void f() {{\n    {call};\n}}\n")])


def test_every_constant_is_one_of_the_program_or_of_mql5() -> None:
    trees = list(_trees().values())
    used = {text_of(node) for tree in trees for node in nodes(tree) if node.type == "identifier"}
    constants = {name for name in used if re.fullmatch(r"[A-Z][A-Z0-9_]+", name)}
    assert constants - defined(trees) - CONSTANTS == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_metaeditor_reads_it_right(path: Path) -> None:
    content = path.read_bytes()
    # Without the mark MetaEditor takes a file for the PC's own code page.
    assert content.isascii() or content.startswith(b"\xef\xbb\xbf")


@pytest.mark.parametrize(("page", "clock"), [("ea.md", "this terminal"), ("ea.pt-BR.md", "este terminal")])
def test_the_documentation_has_every_input_with_its_default(page: str, clock: str) -> None:
    text = (_FOLDER / "inputs.mqh").read_text(encoding="utf-8-sig")
    inputs = dict(re.findall(r"^input \w+ (\w+) = ([^;]*);", text, re.M))
    rows = re.findall(r"^\| `(\w+)` \| .* \| ([^|]*) ?\|$", (_FOLDER.parent / "docs" / page).read_text(), re.M)
    defaults = {name: default.strip(" `") for name, default in rows}
    assert defaults.pop("Clock") == clock
    assert inputs.pop("Clock") == "CLOCK_AUTO"
    assert {name: value.strip('"') for name, value in inputs.items()} == defaults


def test_every_input_is_explained_in_english_and_portuguese() -> None:
    text = (_FOLDER / "inputs.mqh").read_text(encoding="utf-8-sig")
    inputs = re.findall(r"^input \w+ (\w+) = [^;]*;( +//.*)$", text, re.M)
    assert len(inputs) == 14
    for name, comment in inputs:
        assert re.fullmatch(r" +// \S.* / \S.*", comment), name
        # The dialog's column is narrow.
        assert len(comment.strip(" /")) <= 63, name
