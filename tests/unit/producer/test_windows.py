"""GET /windows/: the kit, its page, and who gets them."""

import base64
import io
import zipfile
from hashlib import sha256

import pytest

from runtime.kit import kit_files
from tests.unit.producer.conftest import ANY_KEY, KEY, Bench


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"me:{key}".encode()).decode()


@pytest.mark.parametrize("path", ["/windows/", "/windows/tickpipe-windows.zip"])
async def test_the_kit_needs_a_key_which_a_browser_asks_for(bench: Bench, path: str) -> None:
    refused = await bench.client.get(path)
    assert (refused.status_code, refused.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    assert (await bench.client.get(path, headers={"Authorization": basic("wrong")})).status_code == 401
    for key in (KEY, ANY_KEY):
        assert (await bench.client.get(path, headers={"Authorization": basic(key)})).status_code == 200
    assert (await bench.client.get(path, headers=bench.headers)).status_code == 200


async def test_the_zip_is_the_kit_and_the_page_tells_its_digest(bench: Bench) -> None:
    zipped = (await bench.client.get("/windows/tickpipe-windows.zip", headers=bench.headers)).content
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == kit_files()
    page = await bench.client.get("/windows/", headers=bench.headers)
    assert sha256(zipped).hexdigest() in page.text
    assert "script" not in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"Host": "ticks.example.com"}, "-Forward http://ticks.example.com<"),
        ({"Host": "192.0.2.7:18001"}, "-Forward http://192.0.2.7:18001<"),
        ({"Host": "ticks.example.com", "X-Forwarded-Proto": "https"}, "-Forward https://ticks.example.com<"),
        # What would end the command, or the page, is no name of a host.
        ({"Host": "x;calc"}, "-Forward http://HOST:18001<"),
        ({"Host": "<b>"}, "-Forward http://HOST:18001<"),
    ],
)
async def test_the_command_names_the_server_as_the_browser_does(
    bench: Bench, sent: dict[str, str], expected: str
) -> None:
    page = await bench.client.get("/windows/", headers=bench.headers | sent)
    assert expected in page.text


async def test_the_redirect_to_the_page_names_no_host(bench: Bench) -> None:
    answer = await bench.client.get("/windows", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.headers["Location"]) == (307, "/windows/")
    assert (await bench.client.get("/health/", headers={"Host": "evil.example"})).status_code == 404


async def test_the_page_speaks_portuguese(bench: Bench) -> None:
    page = await bench.client.get("/windows/", headers=bench.headers | {"Accept-Language": "pt-BR"})
    assert '<html lang="pt-BR">' in page.text
    assert "Executar como administrador" in page.text
