"""The chart library that is served is the one that TradingView published, and says whose it is."""

import re
from pathlib import Path

import pytest

from dashboard import assets


def test_library_is_installed_with_its_notice() -> None:
    library = assets.chart_library()
    assert library is not None
    head = library[:400].decode()
    assert f"Lightweight Charts™ v{assets.CHART_LIBRARY_VERSION}" in head
    assert "Apache License 2.0" in head


def test_another_file_than_the_published_one_is_not_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    vendor = tmp_path / "lwcharts" / "vendor"
    vendor.mkdir(parents=True)
    (vendor.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert assets.chart_library() is None
    (vendor / "lightweight-charts.standalone.production.js").write_text("alert('not ours')")
    assert assets.chart_library() is None


def test_page_carries_the_attribution_and_no_inline_code() -> None:
    page = (assets.STATIC / "index.html").read_text()
    assert "Copyright © 2026 TradingView, Inc." in page
    assert 'href="https://www.tradingview.com/"' in page
    assert "style=" not in page
    assert "onclick" not in page
    assert "<script>" not in page


@pytest.mark.parametrize("path", sorted(assets.STATIC.rglob("*.js")), ids=lambda path: path.name)
def test_scripts_put_text_never_markup(path: Path) -> None:
    assert "innerHTML" not in path.read_text()


def test_languages_have_the_same_texts() -> None:
    source = (assets.STATIC / "js" / "i18n.js").read_text()
    english, portuguese = source.split("  pt: {")[0], source.split("  pt: {")[1]
    names = [set(re.findall(r'(?:^ {4}|, )(\w+): "', half, re.MULTILINE)) for half in (english, portuguese)]
    assert names[0] == names[1]
    assert len(names[0]) > 60
