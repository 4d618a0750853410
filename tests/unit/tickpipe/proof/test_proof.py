"""A proof holds for two checkers that share no code, and whatever is changed in it is named."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from shutil import copytree

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given

from marketdata.candle import Candle
from marketdata.offsets import normalized, position
from marketdata.refold import Proof, Refold
from marketdata.tick import Frame, Tick
from tests import oracle
from tests.conftest import fewer_examples
from tests.extras import Installed
from tests.unit.archive.test_writer import Log, logs
from tests.unit.tickpipe.proof import second_checker
from tickpipe.proof.check import check, fingerprint_of, signature_faults
from tickpipe.proof.document import MerkleTree
from tickpipe.proof.export import NotAKey, ProofWriter, ProvenFold, Wanted, sign

LOG = "cluster/ticks/id"
#: 2019-02-04 23:57.
BEGIN = 1_549_324_620_000


def stored_and_folded(log: Log) -> Iterator[tuple[Candle, ProvenFold]]:
    """Every candle of the log with its fold, source by source and symbol by symbol, in order of time."""
    placed = [(position(0, offset), frame) for offset, frame in log]
    minutes = oracle.minutes_in(placed)
    refold = Refold([Proof(*key, normalized(ranges)) for key, ranges in minutes.items()], ProvenFold)
    refold.feed(placed)
    for proof, fold in sorted(refold.results().items(), key=lambda one: (one[0].source, one[0].symbol, one[0].ts)):
        candle = fold.candle(log=LOG, offsets=proof.ranges, closed=True, emitted=0)
        if candle is not None:
            assert isinstance(fold, ProvenFold)
            yield candle, fold


def frame(index: int, *ticks: Tick, mode: str = "bid", point: float | None = 0.00001) -> tuple[int, Frame]:
    return index, Frame(
        v=1, source="Broker", symbol="EURUSD", mode=mode, point=point, request=f"r{index}", received=BEGIN,  # type: ignore[arg-type]
        ticks=list(ticks),
    )  # fmt: skip


def tick(seconds: float, bid: float, *, last: float = 0.0, volume: float = 0.0, flags: int = 6) -> Tick:
    return Tick(BEGIN + round(seconds * 1000), bid, round(bid + 0.00012, 5), last, volume, flags)


#: Five minutes around midnight, with a resend, a late tick, deals and a minute without any tick.
MARKET: Log = [
    frame(0, tick(1, 1.1), tick(2, 1.10003), tick(2, 1.09), tick(59.999, 1.10001)),
    frame(1, tick(1, 1.1), tick(2, 1.10003)),
    frame(2, tick(61, 1.2, last=1.2, volume=0.1, flags=24), tick(70, 1.3, last=1.3, volume=0.2, flags=24)),
    frame(3, tick(5, 1.11)),
    frame(4, tick(181, 1.25), tick(182, 1.26)),
    frame(5, tick(245, 1.5, last=1.5, volume=3.5, flags=24), tick(246, 1.4), mode="last", point=None),
]  # fmt: skip


def write(directory: Path, log: Log) -> dict[int, str]:
    """The minutes that were left out."""
    directory.mkdir()
    writer = ProofWriter(directory, LOG)
    for candle, fold in stored_and_folded(log):
        writer.take(candle, fold)
    begin, end = (datetime.fromtimestamp(BEGIN / 1000 + minute * 60, UTC) for minute in (0, 5))
    writer.finish(Wanted("Broker", "EURUSD", begin, end))
    return writer.done.left_out


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key.pem"
    path.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory, key: Path) -> Path:
    directory = tmp_path_factory.mktemp("proof") / "proof"
    assert write(directory, MARKET) == {}
    sign(directory, key)
    return directory


def public_key(key: Path, path: Path) -> Path:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    private = load_pem_private_key(key.read_bytes(), None)
    path.write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_an_untouched_proof_holds_for_both_checkers(proof: Path, key: Path, tmp_path: Path) -> None:
    assert list(check(proof, fingerprint=fingerprint_of(proof))) == []
    assert list(signature_faults(proof, None)) == []
    assert list(signature_faults(proof, public_key(key, tmp_path / "pub.pem"))) == []
    second_checker.check(proof, fingerprint_of(proof))
    candles = (proof / "candles.csv").read_text().splitlines()
    assert [line.split(",")[:9] for line in candles[1:]] == [
        [str(BEGIN), "1.1", "1.11", "1.09", "1.10001", "5", "0.0", "12", str(BEGIN + 1_000)],
        [str(BEGIN + 60_000), "1.2", "1.3", "1.2", "1.3", "2", repr(0.1 + 0.2), "12", str(BEGIN + 61_000)],
        [str(BEGIN + 180_000), "1.25", "1.26", "1.25", "1.26", "2", "0.0", "12", str(BEGIN + 181_000)],
        [str(BEGIN + 240_000), "1.5", "1.5", "1.5", "1.5", "1", "3.5", "", str(BEGIN + 245_000)],
    ]


def test_the_second_checker_is_short_and_shares_no_code() -> None:
    source = Path(second_checker.__file__).read_text()
    assert len(source.splitlines()) <= 150
    assert "tickpipe" not in source.replace("Tickpipe", "")


@fewer_examples
@given(logs())
def test_every_candle_of_any_log_is_the_naive_fold_of_its_ticks(
    tmp_path_factory: pytest.TempPathFactory, log: Log
) -> None:
    """But for minutes that were charted in two ways."""
    directory = tmp_path_factory.mktemp("log") / "proof"
    left_out = write(directory, log)
    assert set(left_out.values()) <= {"its symbol was charted by bid and by last"}


@pytest.mark.parametrize("count", range(1, 18))
def test_the_tree_is_that_of_rfc_6962(count: int) -> None:
    lines = [f"{number}\n".encode() for number in range(count)]
    tree = MerkleTree()
    for line in lines:
        tree.add(line)
    assert tree.root() == second_checker.root([sha256(b"\0" + line).digest() for line in lines]).hex()


def test_a_proof_is_checked_where_nothing_else_is_installed(proof: Path, tmp_path: Path) -> None:
    bare = Installed(tmp_path)
    done = bare.run("from tickpipe.cli import main; main()", "proof", "check", str(proof))
    assert "cryptography is not installed" in done.stderr, done.stdout
    unsigned = copytree(proof, tmp_path / "unsigned")
    (unsigned / "proof.sig").unlink()
    (unsigned / "proof.pub").unlink()
    done = bare.run("from tickpipe.cli import main; main()", "proof", "check", str(unsigned))
    assert done.returncode == 0, done.stderr
    assert "Every candle is the fold of its ticks." in done.stdout
    script = [sys.executable, "-I", second_checker.__file__, str(proof)]
    assert subprocess.run(script, capture_output=True, text=True, check=True).stdout == "the proof holds\n"


def test_only_a_private_key_of_ed25519_signs(tmp_path: Path, proof: Path) -> None:
    (tmp_path / "key").write_text("no key")
    with pytest.raises(NotAKey, match="no private key"):
        sign(proof, tmp_path / "key")


Change = Callable[[Path], object]

#: Files of a proof, and the place of what is changed in them.
DAY, NEXT_DAY, CANDLES, ABOUT = "ticks/2019-02-04.csv", "ticks/2019-02-05.csv", "candles.csv", "proof.json"


def cell(path: str, line: int, column: int, value: str) -> Change:
    def change(proof: Path) -> None:
        lines = (proof / path).read_text().split("\n")
        cells = lines[line].split(",")
        assert cells[column] != value
        cells[column] = value
        lines[line] = ",".join(cells)
        (proof / path).write_text("\n".join(lines))

    return change


def lines(path: str, edit: Callable[[list[str]], object]) -> Change:
    def change(proof: Path) -> None:
        content = (proof / path).read_text().splitlines(keepends=True)
        edit(content)
        (proof / path).write_text("".join(content))

    return change


def swap(one: int, other: int) -> Callable[[list[str]], None]:
    def edit(content: list[str]) -> None:
        content[one], content[other] = content[other], content[one]

    return edit


def said(name: str, value: object) -> Change:
    def change(proof: Path) -> None:
        about = json.loads((proof / ABOUT).read_text())
        assert about.get(name) != value
        about[name] = value
        (proof / ABOUT).write_text(json.dumps(about, indent=1) + "\n")

    return change


def made_consistent(change: Change) -> Change:
    """The forger also corrects the hashes of all files."""

    def both(proof: Path) -> None:
        change(proof)
        about = json.loads((proof / ABOUT).read_text())
        for file in about["files"]:
            content = (proof / file["path"]).read_bytes()
            file["sha256"], file["bytes"] = sha256(content).hexdigest(), len(content)
        (proof / ABOUT).write_text(json.dumps(about, indent=1) + "\n")

    return both


def removed(path: str) -> Change:
    return lambda proof: (proof / path).unlink()


def added(path: str, text: str = "x") -> Change:
    def change(proof: Path) -> None:
        (proof / path).write_text(text)

    return change


def folder_instead(proof: Path) -> None:
    (proof / CANDLES).unlink()
    (proof / CANDLES).mkdir()


def moved(path: str, to: str) -> Change:
    return lambda proof: (proof / path).rename(proof / to)


def copied(path: str, to: str) -> Change:
    return lambda proof: (proof / to).write_bytes((proof / path).read_bytes())


def linked(path: str, to: str = "") -> Change:
    """A link to the same content, or to nothing."""

    def change(proof: Path) -> None:
        elsewhere = proof.with_name(f"{proof.name} {Path(path).name}")
        (proof / path).rename(elsewhere)
        (proof / path).symlink_to(to or elsewhere)

    return change


def content(path: str, edit: Callable[[bytes], bytes]) -> Change:
    def change(proof: Path) -> None:
        before = (proof / path).read_bytes()
        after = edit(before)
        assert after != before
        (proof / path).write_bytes(after)

    return change


def other_digit(before: bytes) -> bytes:
    """Another digit in the hash of the first file."""
    place = before.index(b'"sha256": "') + len(b'"sha256": "')
    return before[:place] + (b"1" if before[place : place + 1] != b"1" else b"2") + before[place + 1 :]


def shift_offsets(path: Path) -> None:
    content = path.read_text().splitlines(keepends=True)
    cells = content[1].split(",")
    cells[12] = re.sub(r"\d+$", lambda found: str(int(found[0]) + 1), cells[12])
    assert ",".join(cells) != content[1]
    path.write_text("".join([content[0], ",".join(cells), *content[2:]]))


def swapped_hashes(content: list[str]) -> None:
    rows = [line.rstrip("\n").split(",") for line in content]
    rows[1][13], rows[2][13] = rows[2][13], rows[1][13]
    content[1:3] = [",".join(row) + "\n" for row in rows[1:3]]


def of_each_line(path: str, edit: Callable[[int, list[str]], list[str]]) -> Change:
    """The same change in the header, line 0, and in every line, with the hashes corrected."""

    def change(content: list[str]) -> None:
        for number, line in enumerate(content):
            content[number] = ",".join(edit(number, line.rstrip("\n").split(","))) + "\n"

    return made_consistent(lines(path, change))


def swapped_times(content: list[str]) -> None:
    """Each of two candles stands at the minute of the other."""
    rows = [line.split(",") for line in content]
    rows[1][0], rows[2][0] = rows[2][0], rows[1][0]
    content[1:3] = [",".join(rows[2]), ",".join(rows[1])]


def moved_leaf(proof: Path) -> None:
    """The root is that of the same candles in another order."""
    leaves = (proof / CANDLES).read_bytes().splitlines(keepends=True)[1:]
    tree = MerkleTree()
    for leaf in (leaves[1], leaves[0], *leaves[2:]):
        tree.add(leaf)
    said("root", tree.root())(proof)


def about_a_file(name: str, value: object) -> Change:
    def change(proof: Path) -> None:
        files = json.loads((proof / ABOUT).read_text())["files"]
        files[0][name] = value
        said("files", files)(proof)

    return change


#: What is changed, and what the check says of it.
TAMPERINGS: dict[str, tuple[Change, str]] = {
    **{
        f"the {name} of a tick": (cell(DAY, 1, column, value), "the ticks of 2019-02-04 23:57 are not those")
        for column, (name, value) in enumerate(
            [("time", str(BEGIN + 999)), ("bid", "1.10001"), ("ask", "1.2"), ("last", "1.0"), ("volume", "1.0"),
             ("flags", "2")]
        )
    },
    **{
        f"the {name} of a candle": (cell(CANDLES, 1, column, value), f"{name} of 2019-02-04 23:57 is {value}")
        for column, (name, value) in enumerate(
            [("open", "1.2"), ("high", "1.2"), ("low", "1.0"), ("close", "1.2"), ("volume", "6"),
             ("real_volume", "1.0"), ("spread", "11"), ("first_tick", str(BEGIN)), ("last_tick", str(BEGIN))], start=1
        )
    },
    **{
        f"the {name} of a candle, hashes corrected": (
            made_consistent(cell(CANDLES, 2, column, value)), f"{name} of 2019-02-04 23:58 is {value}"
        )
        for column, (name, value) in enumerate(
            [("open", "1.21"), ("high", "1.4"), ("low", "1.0"), ("close", "1.2"), ("volume", "3"),
             ("real_volume", "0.3"), ("spread", "13"), ("first_tick", str(BEGIN)), ("last_tick", str(BEGIN))], start=1
        )
    },
    "the time of a candle": (cell(CANDLES, 1, 0, str(BEGIN + 120_000)), "and no candle"),
    "the mode of a candle": (cell(CANDLES, 2, 10, "last"), "the root"),
    "an unknown mode": (cell(CANDLES, 1, 10, "ask"), "charted by neither"),
    "the point of a candle": (cell(CANDLES, 1, 11, "0.0001"), "spread of 2019-02-04 23:57"),
    "no point": (cell(CANDLES, 1, 11, ""), "spread of 2019-02-04 23:57"),
    "a point of nothing": (cell(CANDLES, 1, 11, "0.0"), "no point above 0"),
    "the offsets of a candle": (made_consistent(cell(CANDLES, 1, 12, "0:0-99")), "the root"),
    "the hash of a candle's ticks": (cell(CANDLES, 1, 13, "0" * 64), "the ticks of 2019-02-04 23:57"),
    "a tick less": (lines(DAY, lambda content: content.pop(2)), "volume of 2019-02-04 23:57 is 5, its ticks make 4"),
    "a tick twice": (lines(DAY, lambda content: content.insert(2, content[1])), "its ticks make 6"),
    "ticks in another order": (lines(DAY, swap(1, 2)), "not in order of time"),
    "ticks of one millisecond in another order": (made_consistent(lines(DAY, swap(2, 3))), "the ticks of 2019-02-04"),
    "a tick of another day": (lines(DAY, lambda content: content.append(f"{BEGIN + 240_000},1.0,1.0,0.0,0.0,6\n")),
                              "of another day"),
    "a tick of a minute without a candle": (
        lines(DAY, lambda content: content.append(f"{BEGIN + 120_001},1.0,1.0,0.0,0.0,6\n")),
        "there are ticks of 2019-02-04 23:59, and no candle",
    ),
    "a candle less": (made_consistent(lines(CANDLES, lambda content: content.pop(1))), "and no candle"),
    "a candle twice": (lines(CANDLES, lambda content: content.insert(1, content[1])), "not in order"),
    "candles in another order": (made_consistent(lines(CANDLES, swap(1, 2))), "not in order"),
    "a number in other digits": (made_consistent(cell(CANDLES, 1, 1, "1.10")), "the one way that counts"),
    "a tick's number in other digits": (made_consistent(cell(DAY, 1, 1, "1.10")), "line 2"),
    "no number": (cell(DAY, 1, 1, "abc"), "line 2"),
    "a cell too many": (lines(DAY, lambda content: content.insert(1, "1,2,3,4,5,6,7\n")), "7 cells"),
    "another header of ticks": (cell(DAY, 0, 1, "ask"), "another first line"),
    "another header of candles": (cell(CANDLES, 0, 1, "close"), "another first line"),
    "no end of the last line": (made_consistent(lambda proof: (proof / DAY).write_text(
        (proof / DAY).read_text().removesuffix("\n"))), "line"),
    "an empty file of ticks": (added(DAY, ""), "another first line"),
    "a missing file of ticks": (removed(NEXT_DAY), f"{NEXT_DAY} is missing"),
    "no candles": (removed(CANDLES), f"{CANDLES} is missing"),
    "no proof.json": (removed(ABOUT), f"{ABOUT} is missing"),
    "another file": (added("ticks/2019-02-06.csv"), "does not belong"),
    "another folder's file": (added("more.txt"), "does not belong"),
    "proof.json that is no JSON": (added(ABOUT, "{"), "cannot be used"),
    "another symbol": (said("symbol", "GBPUSD"), "not the one of this fingerprint"),
    "another source": (said("source", "Other"), "not the one of this fingerprint"),
    "another log": (said("log", "other"), "not the one of this fingerprint"),
    "a later beginning": (said("from", BEGIN + 60_000), "not within the time"),
    "an earlier end": (said("to", BEGIN + 60_000), "not within the time"),
    "an earlier beginning": (said("from", BEGIN - 60_000), "not the one of this fingerprint"),
    "more candles": (said("candles", 5), "there are 4 candles instead of 5"),
    "more ticks": (said("ticks", 99), "ticks instead of 99"),
    "another root": (said("root", "0" * 64), "the root"),
    "another format": (said("format", 2), "cannot be used"),
    "another timeframe": (said("timeframe", "M5"), "cannot be used"),
    "something more in proof.json": (said("note", "trust me"), "cannot be used"),
    "a minute that is said to be left out": (said("left_out", [{"ts": BEGIN, "why": "?"}]), "said to be left out"),
    "a file of another name": (moved(NEXT_DAY, "ticks/2019-02-06.csv"), f"{NEXT_DAY} is missing"),
    "a file of two names": (copied(DAY, "ticks/2019-02-03.csv"), "does not belong"),
    "two files of each other's names": (
        lambda proof: [moved(DAY, "one")(proof), moved(NEXT_DAY, DAY)(proof), moved("one", NEXT_DAY)(proof)],
        f"{DAY} is not the file of the proof",
    ),
    "a folder instead of a file": (folder_instead, f"{CANDLES} is missing"),
    "a link to the same ticks": (linked(DAY), f"{DAY} is a link"),
    "a link to nothing": (linked(CANDLES, "nowhere"), f"{CANDLES} is a link"),
    "a folder that is a link": (linked("ticks"), "ticks is a link"),
    "bytes after the last candle": (made_consistent(content(CANDLES, lambda text: text + b"\0")), "line 6"),
    "an empty line after the last tick": (made_consistent(content(NEXT_DAY, lambda text: text + b"\n")), "line"),
    "other ends of lines": (
        made_consistent(content(CANDLES, lambda text: text.replace(b"\n", b"\r\n"))), "another first line"
    ),
    "a mark of the byte order": (
        made_consistent(content(DAY, lambda text: b"\xef\xbb\xbf" + text)), "another first line"
    ),
    "a digit of a file's hash": (content(ABOUT, other_digit), "is not the file of the proof"),
    "a space in proof.json": (content(ABOUT, lambda text: text + b" "), "not the one of this fingerprint"),
    "the hashes of two candles' ticks swapped": (
        made_consistent(lines(CANDLES, swapped_hashes)), "the ticks of 2019-02-04 23:58 are not those"
    ),
    "offsets that are one higher": (made_consistent(lambda proof: shift_offsets(proof / CANDLES)), "the root"),
    "a leaf of the tree moved": (moved_leaf, "the root"),
    "two candles at each other's minute": (
        made_consistent(lines(CANDLES, swapped_times)), "the ticks of 2019-02-04 23:57 are not those"
    ),
    "one more column of candles": (
        of_each_line(CANDLES, lambda number, cells: [*cells, "0" if number else "note"]), "another first line"
    ),
    "one more column without a name": (
        of_each_line(CANDLES, lambda number, cells: [*cells, *["0"] * bool(number)]), "15 cells instead of 14"
    ),
    "one column of ticks less": (of_each_line(DAY, lambda _, cells: cells[:-1]), "another first line"),
    "two columns of ticks swapped, names and all": (
        of_each_line(DAY, lambda _, cells: [cells[0], cells[2], cells[1], *cells[3:]]), "another first line"
    ),
    "whole numbers as doubles": (
        of_each_line(CANDLES, lambda number, cells: [*cells[:5], cells[5] + ".0" * bool(number), *cells[6:]]), "line 2"
    ),
    "doubles with an exponent": (
        of_each_line(DAY, lambda number, cells: [cells[0], cells[1] + "e0" * bool(number), *cells[2:]]), "line 2"
    ),
    "something more about a file": (about_a_file("type", "csv"), "cannot be used"),
    "a size as text": (about_a_file("bytes", "12"), "cannot be used"),
    "a key twice": (
        content(ABOUT, lambda text: text.replace(b'"root":', b'"root": "0",\n "root":')),
        "not the one of this fingerprint",
    ),
    "no files": (said("files", []), "does not belong"),
    "a file of another folder": (said("files", [{"path": "../key", "sha256": "", "bytes": 0}]), "cannot be used"),
}  # fmt: skip


def test_every_tampering_is_named_by_both_checkers(proof: Path, key: Path, tmp_path: Path) -> None:
    assert len(TAMPERINGS) > 50
    fingerprint, trusted = fingerprint_of(proof), public_key(key, tmp_path / "pub.pem")
    for number, (name, (change, expected)) in enumerate(TAMPERINGS.items()):
        changed = copytree(proof, tmp_path / str(number))
        change(changed)
        faults = list(check(changed, fingerprint=fingerprint))
        assert any(expected in fault for fault in faults), (name, faults)
        with pytest.raises((second_checker.Wrong, ValueError, KeyError, OSError)):
            second_checker.check(changed, fingerprint)
        if (changed / ABOUT).exists() and (changed / ABOUT).read_bytes() != (proof / ABOUT).read_bytes():
            assert any("not signed by" in fault for fault in signature_faults(changed, trusted)), name


def test_a_signature_that_is_not_the_signers_is_named(proof: Path, key: Path, tmp_path: Path) -> None:
    trusted = public_key(key, tmp_path / "pub.pem")
    forged = copytree(proof, tmp_path / "forged")
    other = tmp_path / "other.pem"
    other.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    sign(forged, other)
    assert list(signature_faults(forged, None)) == []
    assert "was not signed by the key in pub.pem" in "".join(signature_faults(forged, trusted))
    (forged / "proof.sig").write_text("abc")
    assert "cannot be read" in "".join(signature_faults(forged, trusted))
    (forged / "proof.sig").unlink()
    assert "proof.sig is missing" in "".join(signature_faults(forged, trusted))
