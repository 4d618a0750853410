"""GET /windows/: the kit for a trading PC, and a page in English and Portuguese that says how to install it."""

import asyncio
import re
from functools import cache
from hashlib import sha256
from html import escape
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from marketdata.contract.http import Refusal, refused
from producer.auth import Keyring
from producer.ingest import json_response
from runtime.kit import KIT_NAME, kit_files, packed
from runtime.pages import ASK_FOR_KEY, HEADERS, Language, language_of, page, password_in

_HOST: Final = re.compile(r"[\w.-]+(?::\d+)?|\[[\da-fA-F:.]+\](?::\d+)?", re.ASCII)

_INSTALL: Final = """Get-ChildItem -Recurse | Unblock-File
Set-ExecutionPolicy -Scope Process RemoteSigned -Force
.\\install.ps1 -Forward {url}"""

_TITLES: Final[dict[Language, str]] = {"en": "Tickpipe for the trading PC", "pt": "Tickpipe para o PC de operações"}

_BODIES: Final[dict[Language, str]] = {
    "en": """
<p>The relay takes every tick on the PC where MetaTrader runs, writes it to the disk and forwards it to this
server.</p>
<h2>Install</h2>
<ol>
<li>Download <a href="{name}">{name}</a> ({kilobytes} kB, SHA-256 <code>{digest}</code>) and extract it.</li>
<li>Install Python 3.11, 3.12 or 3.13 from python.org <em>for all users</em> (Customize installation), if it is not
there.</li>
<li>Open PowerShell with <em>Run as administrator</em> in the extracted folder:<pre>{install}</pre>
It asks for the key, installs the relay, starts it with Windows, and checks the way to this server with a test
tick.</li>
<li>In MetaTrader: File → Open Data Folder. Copy the folder <code>DataCollectorPRO</code> into
<code>MQL5\\Experts</code>, open
<code>DataCollectorPRO.mq5</code> in MetaEditor and press F7.</li>
<li>Tools → Options → Expert Advisors → <em>Allow WebRequest for listed URL</em>: add
<code>http://127.0.0.1:18000</code>. Drag DataCollectorPRO to any one chart.</li>
<li>Look at <code>http://127.0.0.1:18000</code> on that PC: its newest ticks, and whether they arrive here.</li>
</ol>
<p>A newer kit is installed over an older one in the same way; no tick is lost. <code>.\\install.ps1
-Uninstall</code> removes the relay and leaves its data. For a PC without internet <code>tickpipe kit FOLDER
--wheels</code> on this server writes the kit with everything that it would download.</p>""",
    "pt": """
<p>O relay recebe cada tick no PC onde o MetaTrader roda, grava-o no disco e o encaminha a este servidor.</p>
<h2>Instalar</h2>
<ol>
<li>Baixe <a href="{name}">{name}</a> ({kilobytes} kB, SHA-256 <code>{digest}</code>) e extraia os arquivos.</li>
<li>Instale o Python 3.11, 3.12 ou 3.13 de python.org <em>para todos os usuários</em> (Customize installation), se
ainda não estiver no PC.</li>
<li>Abra o PowerShell com <em>Executar como administrador</em> na pasta extraída:<pre>{install}</pre>
Ele pede a chave, instala o relay, inicia-o com o Windows e verifica o caminho até este servidor com um tick de
teste.</li>
<li>No MetaTrader: Arquivo → Abrir Pasta de Dados. Copie a pasta <code>DataCollectorPRO</code> para
<code>MQL5\\Experts</code>, abra
<code>DataCollectorPRO.mq5</code> no MetaEditor e pressione F7.</li>
<li>Ferramentas → Opções → Expert Advisors → <em>Permitir WebRequest para as URLs listadas</em>: adicione
<code>http://127.0.0.1:18000</code>. Arraste DataCollectorPRO para um gráfico qualquer, um só.</li>
<li>Veja <code>http://127.0.0.1:18000</code> nesse PC: os ticks mais novos e se eles chegam aqui.</li>
</ol>
<p>Um kit mais novo é instalado por cima do antigo do mesmo modo; nenhum tick se perde. <code>.\\install.ps1
-Uninstall</code> remove o relay e deixa os dados. Para um PC sem internet, <code>tickpipe kit PASTA --wheels</code>
neste servidor grava o kit com tudo o que ele baixaria.</p>""",
}


def add_windows_kit(app: FastAPI, keyring: Keyring) -> None:
    """Add the page and the kit; both need a key, which a browser asks for."""

    @app.get("/windows", include_in_schema=False)
    async def show_way() -> Response:
        return Response(status_code=307, headers={"Location": "/windows/"})

    @app.get("/windows/", include_in_schema=False)
    async def show_page(request: Request) -> Response:
        if (refusal := _refusal(request, keyring)) is not None:
            return refusal
        kit, digest = await asyncio.to_thread(_kit)
        language = language_of(request.url.query, request.headers.get("accept-language", ""))
        body = _BODIES[language].format(
            name=KIT_NAME,
            kilobytes=round(len(kit) / 1000),
            digest=digest,
            install=escape(_INSTALL.format(url=_url(request))),
        )
        return Response(page(language, _TITLES[language], body), headers=HEADERS)

    @app.get(f"/windows/{KIT_NAME}", include_in_schema=False)
    async def download(request: Request) -> Response:
        if (refusal := _refusal(request, keyring)) is not None:
            return refusal
        kit, _ = await asyncio.to_thread(_kit)
        headers = {"Content-Disposition": f'attachment; filename="{KIT_NAME}"', "Cache-Control": "no-store"}
        return Response(kit, media_type="application/zip", headers=headers)


@cache
def _kit() -> tuple[bytes, str]:
    """The kit and its SHA-256."""
    kit = packed(kit_files())
    return kit, sha256(kit).hexdigest()


def _refusal(request: Request, keyring: Keyring) -> Response | None:
    headers = dict(request.scope["headers"])
    password = password_in(request.headers.get("authorization", ""))
    if password is not None:
        headers[b"x-api-key"] = password
    try:
        keyring.identify(headers)
    except Refusal as exc:
        answer, more = refused(exc)
        return json_response(exc.status, answer, more | (ASK_FOR_KEY if exc.status == 401 else {}))
    return None


def _url(request: Request) -> str:
    """This server as the browser knows it."""
    host = request.headers.get("host", "")
    scheme = "https" if "https" in (request.url.scheme, request.headers.get("x-forwarded-proto")) else "http"
    return f"{scheme}://{host}" if _HOST.fullmatch(host) else "http://HOST:18001"
