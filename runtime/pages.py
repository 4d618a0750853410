"""Pages for people in English and Portuguese, without scripts: the relay's status, the kit for a trading PC."""

import base64
import binascii
import re
from hashlib import sha256
from html import escape
from typing import Final, Literal
from urllib.parse import parse_qs

Language = Literal["en", "pt"]

_OTHER: Final[dict[Language, tuple[Language, str]]] = {"en": ("pt", "Português"), "pt": ("en", "English")}

_STYLE: Final = """
:root { color-scheme: light dark; --faint: #7a7f87; --line: #8884; --good: #0a7d4f; --bad: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --good: #3ecf8e; --bad: #ff7b6b; } }
body { font: 15px/1.5 system-ui, "Segoe UI", sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
header { display: flex; justify-content: space-between; align-items: baseline; }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 500; color: var(--faint); white-space: nowrap; padding-right: 2rem }
td.n, th.n { text-align: right; padding-right: .8rem }
th:first-child { width: 1% } td { overflow-wrap: anywhere } td.n { white-space: nowrap }
pre { padding: .7rem 1rem; border: 1px solid var(--line); border-radius: 4px; overflow-x: auto }
.state { font-size: 1.1rem; font-weight: 600 } .good { color: var(--good) } .bad { color: var(--bad) }
.faint { color: var(--faint) }
"""

_STYLE_DIGEST: Final = base64.b64encode(sha256(_STYLE.encode()).digest()).decode()

#: The page runs nothing and loads nothing, and no other page may frame it.
HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_DIGEST}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Accept-Language",
}

#: What a browser is answered that shows no key: it asks the user, any name will do, and sends the key as password.
ASK_FOR_KEY: Final = {"WWW-Authenticate": 'Basic realm="Tickpipe", charset="UTF-8"'}


def language_of(query: str, accept_language: str) -> Language:
    """`?lang=pt` of the query, else the first of the browser's languages that there is, else English."""
    asked = parse_qs(query).get("lang", [""])[0]
    for tag in (asked, *_by_preference(accept_language)):
        primary = tag.partition("-")[0].lower()
        if primary in ("en", "pt"):
            return "pt" if primary == "pt" else "en"
    return "en"


def _by_preference(accept_language: str) -> list[str]:
    weighted = []
    for entry in accept_language.split(",")[:20]:
        tag, _, rest = entry.partition(";")
        quality = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", rest)
        weighted.append((float(quality[1]) if quality else 1.0, tag.strip()))
    return [tag for weight, tag in sorted(weighted, key=lambda each: -each[0]) if weight]


def page(language: Language, title: str, body: str, *, refresh_seconds: int | None = None) -> bytes:
    """A page of ready HTML with a heading and a link to the other language; send `HEADERS` with it."""
    other, name = _OTHER[language]
    refresh = f'<meta http-equiv="refresh" content="{refresh_seconds}">' if refresh_seconds else ""
    locale = "pt-BR" if language == "pt" else "en"
    return (
        f'<!doctype html><html lang="{locale}"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width">{refresh}<title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><header><h1>{escape(title)}</h1>"
        f'<a href="?lang={other}" lang="{other}">{name}</a></header>{body}</html>'
    ).encode()


def password_in(authorization: str) -> bytes | None:
    """The password that a browser sends (HTTP basic, any user name); None when the header holds none."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(token.strip(), validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return None
