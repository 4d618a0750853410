"""The EA's sources keep to MQL5: the C++ compiler of the other tests takes more than MetaEditor does."""

import re
from pathlib import Path

import pytest
from tree_sitter import Node

from tests.unit.ea.guard import (
    Trees,
    changed_inputs,
    defined,
    endless_loops,
    fields_of_answers,
    idle_functions,
    missing_includes,
    nodes,
    only_cpp,
    parsed,
    reused_inputs,
    structures_by_value,
    temporaries,
    text_of,
    texts_with_numbers,
    unknown_calls,
    wrong_formats,
    wrong_handlers,
)
from tests.unit.ea.mql5 import CONSTANTS

_FOLDER = Path(__file__).parents[3] / "ea"
SOURCES = sorted([*_FOLDER.glob("*.mqh"), *_FOLDER.glob("*.mq5")])


def _sources() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8-sig") for path in SOURCES}


def _trees() -> dict[str, Node]:
    return {name: parsed(source) for name, source in _sources().items()}


def _inputs(source: str) -> list[str]:
    return re.findall(r"^input \w+ (\w+) = ", source, re.M)


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
        "int vector = 1;", f"int {'x' * 64} = 1;",
        "delete x;", "x = nullptr;", "static_assert(true);", "goto out;", "int x = y", "using A = int;",
    ],
)  # fmt: skip
def test_what_only_cpp_has_is_found(line: str) -> None:
    assert [node for node in nodes(parsed(f"void f() {{\n    {line}\n}}\n")) if only_cpp(node)]


def test_an_array_by_value_is_found() -> None:
    assert [node for node in nodes(parsed("void f(const int values[]) {\n}\n")) if only_cpp(node)]


def test_a_member_initialised_in_place_is_found() -> None:
    assert [node for node in nodes(parsed("class A {\n    int m_count = 0;\n};\n")) if only_cpp(node)]


def test_every_call_is_of_a_function_that_mql5_has_with_as_many_arguments() -> None:
    assert unknown_calls(_trees()) == []


@pytest.mark.parametrize("call", ["StringLength(x)", "SymbolSelect(x)", "TimeGMT(1, 2)", "x.NoSuch()"])
def test_a_call_that_mql5_does_not_have_is_found(call: str) -> None:
    assert unknown_calls({"a.mqh": parsed(f"void f() {{\n    {call};\n}}\n")})


#: What MetaEditor refuses or warns of, in files that a C++ compiler takes; each with the rule that finds it.
RULES = {
    "a structure by value": (structures_by_value, "struct Tick {\n    int x;\n};\nvoid f(const Tick tick) {\n}\n"),
    "a structure of MQL5 by value": (structures_by_value, "void f(const MqlTick tick) {\n}\n"),
    "the answer of a function by reference": (
        temporaries,
        "struct S {\n    int x;\n};\nS Found() {\n    S s;\n    return s;\n}\nvoid f(const S &s) {\n}\n"
        "void g() {\n    f(Found());\n}\n",
    ),
    "a sum by reference": (temporaries, 'void f(const string a) {\n    StringToLower(a + "x");\n}\n'),
    "an event with other parameters": (wrong_handlers, "void OnDeinit() {\n}\n"),
    "an event with another result": (wrong_handlers, "bool OnInit() {\n    return true;\n}\n"),
    "a function that nobody calls": (idle_functions, "void Forgotten() {\n}\n"),
    "a number behind a text": (texts_with_numbers, 'void f(const int count) {\n    string s = "n: " + count;\n}\n'),
    "the number of a function": (
        texts_with_numbers, 'int Count() {\n    return 1;\n}\nvoid f() {\n    string s = "n: " + Count();\n}\n',
    ),
    "a member of an answer": (
        fields_of_answers, "void f() {\n    int x = Found().x;\n}\n",
    ),
    "a loop that cannot be stopped": (
        endless_loops, "void f() {\n    for(int i = 0; i < 9; i++)\n        string s = SymbolName(i, true);\n}\n",
    ),
    "a format without its argument": (wrong_formats, 'void f() {\n    string s = StringFormat("%d of %d", 1);\n}\n'),
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted({rule.__name__ for rule, _ in RULES.values()}))
def test_the_sources_keep_the_rule(rule: str) -> None:
    assert next(found for found, _ in RULES.values() if found.__name__ == rule)(_trees()) == []


@pytest.mark.parametrize("planted", RULES)
def test_a_planted_error_is_found(planted: str) -> None:
    rule, source = RULES[planted]
    assert rule({"a.mqh": parsed(source)})


def test_no_input_is_changed() -> None:
    assert changed_inputs(_trees(), _inputs(_sources()["inputs.mqh"])) == []
    planted: Trees = {"a.mqh": parsed("void f() {\n    TimerMs = 5;\n    MaxTicks++;\n}\n")}
    assert len(changed_inputs(planted, ["TimerMs", "MaxTicks"])) == 2


def test_no_name_of_an_input_is_used_again() -> None:
    inputs = _inputs(_sources()["inputs.mqh"])
    assert reused_inputs(_trees(), inputs) == []
    planted = {
        "a.mqh": parsed("void f(const int TimerMs) {\n    int MaxTicks = 1;\n}\nint Symbols() {\n    return 1;\n}\n")
    }
    assert reused_inputs(planted, inputs) == ["MaxTicks", "Symbols", "TimerMs"]


def test_the_descriptions_are_short_enough_for_the_dialog() -> None:
    for path in _FOLDER.glob("*.mq5"):
        lines = re.findall(r'^#property description "(.*)"', path.read_text(encoding="utf-8-sig"), re.M)
        # MQL5: "Program Properties (#property)".
        assert len("\n".join(lines)) <= 511


def test_every_file_includes_what_it_uses() -> None:
    """MetaEditor compiles an .mqh by itself too; and who moves an include must not break another file."""
    assert missing_includes(_trees(), _sources()) == []
    planted = {"a.mqh": "#define LIMIT 5\n", "b.mqh": "int f() {\n    return LIMIT;\n}\n"}
    assert missing_includes({name: parsed(text) for name, text in planted.items()}, planted) == ["b.mqh: LIMIT"]


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
    assert len(inputs) == 15
    for name, comment in inputs:
        assert re.fullmatch(r" +// \S.* / \S.*", comment), name
        # The dialog's column is narrow.
        assert len(comment.strip(" /")) <= 63, name
