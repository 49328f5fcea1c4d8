"""The rendered book in a browser, from disk and without a network, at the width of a desk and of a telephone."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import yaml

import build_book

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
SEARCHED = {"shopper": "glossary", "bootstrap": "references"}  # a word, and a page that must be among the answers
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
]

NONE = "no chromium: install it (Debian: apt install chromium)"


@pytest.fixture(scope="session", autouse=True)  # of the session, so that it speaks before the book is rendered
def chromium():
    """Skip these tests where there is no browser; fail them where RECBOOK_NEEDS_BROWSER says that there must be one."""
    if not CHROMIUM:
        (pytest.fail if os.environ.get("RECBOOK_NEEDS_BROWSER") else pytest.skip)(NONE)


def contents() -> list[str]:
    toc = yaml.safe_load((Path(build_book.__file__).parent / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield launched
        launched.close()


@pytest.fixture(params=WIDTHS)
def visit(request, browser):
    """A function that opens an address, and the page with what went wrong in `page.troubles`."""
    width, height = WIDTHS[request.param]
    context = browser.new_context(viewport={"width": width, "height": height})
    page = context.new_page()
    page.troubles = []
    page.on("console", lambda message: message.type == "error" and page.troubles.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: page.troubles.append(f"error: {error}"))
    page.on("requestfailed", lambda asked: page.troubles.append(f"not loaded: {asked.url}"))
    page.on("request", lambda asked: local(asked.url) or page.troubles.append(f"asked the network for {asked.url}"))
    context.route(re.compile(r"^(?!file:|data:|blob:)"), lambda route: route.abort())

    def opened(address: str):
        page.goto(address, wait_until="load")
        page.wait_for_function("!window.MathJax?.startup?.promise || window.MathJax.startup.promise.then(() => true)")
        return page

    yield opened
    context.close()


def local(address: str) -> bool:
    return address.startswith(("file:", "data:", "blob:"))


FORMULAS = """() => {
    const wanted = document.querySelectorAll('.math').length;
    const set = document.querySelectorAll('.math mjx-container, .output mjx-container').length;
    const prose = document.querySelector('article').cloneNode(true);
    prose.querySelectorAll('pre, code, script, style, mjx-container').forEach((node) => node.remove());
    const raw = prose.textContent.match(/\\\\\\(|\\\\\\[|\\$[^$\\n]+\\$|\\\\(?:frac|sum|text)\\b/g) || [];
    return {wanted, set, raw, errors: document.querySelectorAll('mjx-merror').length};
}"""

PICTURES = (
    "() => [...document.images].filter((image) => !image.complete || !image.naturalWidth).map((image) => image.src)"
)

FONTS = """async () => {
    await document.fonts.ready;
    return [...document.fonts].filter((font) => font.status === 'error').map((font) => font.family);
}"""

TOO_WIDE = """() => {
    const root = document.documentElement;
    if (root.scrollWidth <= root.clientWidth) return [];
    const tooWide = (node) => node.getBoundingClientRect().right > root.clientWidth;
    const wide = [...document.querySelectorAll('article *')].filter(tooWide).slice(0, 5);
    return [`${root.scrollWidth} > ${root.clientWidth}`, ...wide.map((node) => node.outerHTML.slice(0, 120))];
}"""


@pytest.mark.parametrize("name", [*contents(), "genindex"])
def test_page_reads_from_disk(name, rendered, visit):
    page = visit((rendered / f"{name}.html").as_uri())
    for image in page.locator("article img").all():
        image.scroll_into_view_if_needed()
    formulas = page.evaluate(FORMULAS)
    assert page.troubles == []
    assert page.evaluate(PICTURES) == []
    assert page.evaluate(FONTS) == []
    assert page.evaluate(TOO_WIDE) == []
    assert formulas["set"] >= formulas["wanted"] and formulas["raw"] == [] and formulas["errors"] == 0


@pytest.mark.parametrize("name", contents())
def test_formulas_of_the_source_are_on_the_page(name, rendered, visit):
    source = build_book.ROOT / "book" / f"{name}.md"
    if source.exists():
        text = source.read_text(encoding="utf-8")
    else:
        cells = nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells
        printed = [o["data"].get("text/markdown", "") for cell in cells for o in cell.get("outputs", []) if "data" in o]
        text = "\n".join([*(cell.source for cell in cells if cell.cell_type == "markdown"), *printed])
    text = re.sub(r"```.*?```|`[^`\n]+`", "", text, flags=re.S)
    written = len(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, re.S))
    page = visit((rendered / f"{name}.html").as_uri())
    assert page.locator("article .math mjx-container").count() == written


@pytest.mark.parametrize("word", SEARCHED)
def test_search_answers_from_disk(word, rendered, visit):
    page = visit((rendered / "search.html").as_uri() + f"?q={word}")
    page.wait_for_selector("#search-results li a")
    page.wait_for_timeout(300)
    found = [link.get_attribute("href") for link in page.locator("#search-results li a").all()]
    assert any(address.startswith(f"{SEARCHED[word]}.html") for address in found)
    assert page.troubles == [] and page.evaluate(TOO_WIDE) == []


def test_first_page_leads_to_every_page(rendered, visit):
    page = visit((rendered / "index.html").as_uri())
    linked = {Path(link.get_attribute("href").split("#")[0]).stem for link in page.locator("nav.bd-links a").all()}
    assert set(contents()[1:]) <= linked


def test_dark_page_keeps_the_system_map_readable(rendered, browser):
    chapter = build_book.chapters()[0]
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto((rendered / f"{chapter}.html").as_uri())
    box = page.locator(".system-map > span:not([aria-current])").first
    ink = box.evaluate("(node) => getComputedStyle(node).color.match(/[\\d.]+/g).slice(0, 3).map(Number)")
    sheet = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).slice(0, 3).map(Number)")
    context.close()
    assert page_is_dark(sheet) and not page_is_dark(ink)


def page_is_dark(colour: list[float]) -> bool:
    return sum(colour) / 3 < 100


def test_a_page_that_asks_the_network_or_breaks_is_seen(tmp_path, visit):
    bad = tmp_path / "bad.html"
    wide = '<article><div style="width:3000px">wide</div><img src="none.png"><p>\\(x\\)</p></article>'
    bad.write_text(f'<!doctype html><script src="https://example.org/a.js"></script>{wide}<script>oops()</script>')
    page = visit(bad.as_uri())
    troubles = " ".join(page.troubles)
    assert (
        "asked the network for https://example.org/a.js" in troubles and "none.png" in troubles and "oops" in troubles
    )
    assert page.evaluate(TOO_WIDE) and page.evaluate(PICTURES) and page.evaluate(FORMULAS)["raw"] == ["\\("]
