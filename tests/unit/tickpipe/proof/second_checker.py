"""A second checker of proofs, written from docs/proof.md with the standard library alone; a script as well."""

import hashlib
import json
import math
import re
import sys
from pathlib import Path

CANDLE = (
    "ts,open,high,low,close,volume,real_volume,spread,first_tick,last_tick,mode,point,offsets,ticks_sha256"  # one line
)
TICK = "time_msc,bid,ask,last,volume,flags"


class Wrong(Exception):
    """The proof does not hold; the message says where."""


def must(holds: bool, why: str) -> None:
    if not holds:
        raise Wrong(why)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + root(leaves[:half]) + root(leaves[half:]))


def number(text: str, kind: type) -> float:
    value = kind(text)
    must(str(value) == text, f"{text} is not the shortest decimal")
    return float(value) if kind is float else value


def lines(path: Path, header: str) -> list[bytes]:
    must(path.is_file(), f"{path.name} is missing")
    content = path.read_bytes().splitlines(keepends=True)
    must(bool(content) and content[0] == header.encode() + b"\n", f"{path.name} has another header")
    return content[1:]


def fold(ticks: list[list[float]], mode: str, point: str) -> dict[str, float | str]:
    deals = [tick for tick in ticks if int(tick[5]) & 120 or not int(tick[5]) & 126]
    drawn = [tick[1] for tick in ticks] if mode == "bid" else [tick[3] for tick in deals]
    prices = [price for price in drawn if price != 0 and math.isfinite(price)]
    must(bool(prices), "no price")
    widths = [ask - bid for _, bid, ask, *_ in ticks if bid != 0 and ask != 0 and math.isfinite(ask - bid)]
    spread: float | str = ""
    if point and widths:
        points = min(widths) / number(point, float)
        spread = round(points) if abs(points) < 2**31 - 1 else ""
    return {
        "open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1],
        "volume": len(drawn), "real_volume": math.fsum(tick[4] for tick in deals if 0 < tick[4] < 1e18),
        "spread": spread, "first_tick": ticks[0][0], "last_tick": ticks[-1][0],
    }  # fmt: skip


def read_ticks(folder: Path, path: str) -> dict[int, list[bytes]]:
    minutes: dict[int, list[bytes]] = {}
    for line in lines(folder / path, TICK):
        minutes.setdefault(int(line.split(b",")[0]) // 60_000 * 60_000, []).append(line)
    return minutes


def check_candle(cells: dict[str, str], ticks: list[bytes]) -> None:
    name = f"candle {cells['ts']}"
    must(hashlib.sha256(b"".join(ticks)).hexdigest() == cells["ticks_sha256"], f"{name} has other ticks")
    rows = []
    for line in ticks:
        parts = line.decode().rstrip("\n").split(",")
        must(len(parts) == 6, f"{name}: {parts}")
        kinds = (int, float, float, float, float, int)
        rows.append([number(text, kind) for text, kind in zip(parts, kinds, strict=True)])
    must(rows == sorted(rows, key=lambda row: row[0]), f"{name}: ticks out of order")
    must(cells["mode"] in ("bid", "last"), f"{name}: mode")
    must(not cells["point"] or number(cells["point"], float) > 0, f"{name}: point")
    for field, value in fold(rows, cells["mode"], cells["point"]).items():
        must(str(value) == cells[field], f"{name}: {field} is {cells[field]}, not {value}")


def check_files(folder: Path, about: dict[str, object]) -> list[str]:
    files = about["files"]
    must(isinstance(files, list), "files")
    paths = []
    for file in files:  # type: ignore[attr-defined]
        path = file["path"]
        must(re.fullmatch(r"candles\.csv|ticks/\d{4}-\d\d-\d\d\.csv", path) is not None, f"a file called {path}")
        must((folder / path).is_file(), f"{path} is missing")
        content = (folder / path).read_bytes()
        must(hashlib.sha256(content).hexdigest() == file["sha256"], f"{path} has another SHA-256")
        must(len(content) == file["bytes"], f"{path} has another size")
        paths.append(path)
    must(not any(path.is_symlink() for path in folder.rglob("*")), "a link instead of a file")
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    must(there - {"proof.sig", "proof.pub"} == {"proof.json", *paths}, "files that do not belong here")
    must(len(paths) == len(set(paths)), "a file twice")
    return [path for path in paths if path.startswith("ticks/")]


def check(folder: Path, fingerprint: str | None = None) -> None:
    content = (folder / "proof.json").read_bytes()
    if fingerprint is not None:
        must(hashlib.sha256(content).hexdigest() == fingerprint, "another proof.json")
    about = json.loads(content)
    must(about["format"] == 1 and about["timeframe"] == "M1", "format")
    minutes: dict[int, list[bytes]] = {}
    for path in check_files(folder, about):
        of_day = read_ticks(folder, path)
        must(not set(of_day) & set(minutes), f"{path} has minutes of another day")
        minutes |= of_day
    must(sum(map(len, minutes.values())) == about["ticks"], "number of ticks")
    leaves, before = [], -1
    left_out = {minute["ts"] for minute in about["left_out"]}
    for line in lines(folder / "candles.csv", CANDLE):
        cells = line.decode().rstrip("\n").split(",")
        must(len(cells) == 14, f"cells of {line!r}")
        ts = int(number(cells[0], int))
        must(before < ts and ts % 60_000 == 0 and about["from"] <= ts < about["to"], f"time of candle {ts}")
        must(ts not in left_out, f"candle {ts} is left out")
        check_candle(dict(zip(CANDLE.split(","), cells, strict=True)), minutes.pop(ts, []))
        leaves.append(sha(b"\0" + line))
        before = ts
    must(not minutes, f"ticks without a candle: {sorted(minutes)}")
    must(len(leaves) == about["candles"], "number of candles")
    must(bool(leaves) and root(leaves).hex() == about["root"], "another Merkle root")


if __name__ == "__main__":
    check(Path(sys.argv[1]), *sys.argv[2:])
    print("the proof holds")
