"""The status page in a browser: one start of it, since that is heavy, for all that is looked at. What
depends on the model is in test_watch.py."""
import os
import subprocess
from pathlib import Path

import pytest

from lib.browser import Browser
from lib.clock import PATIENCE, eventually
from lib.config import Listener
from lib.customer import Customer
from lib.models import MODELS
from lib.server import BINARY, Server
from lib.site import BASIC_ROUTES, SIZES

POOL = next(m for m in MODELS if m.queued)
pytestmark = pytest.mark.slow  # once, and alone

SECTION = "[...document.querySelectorAll('section')].find(s => s.querySelector('h2').textContent.startsWith('{name}'))"


def in_section(server: Server, name: str, script: str) -> str:
    return f"(s => {script})({SECTION.format(name=server[name].text)})"


def shown(browser: Browser, server: Server, name: str, path: str) -> str:
    return browser.evaluate(in_section(server, name, f"s.querySelector('[data-f=\"{path}\"]').textContent"))


def model_shown(browser: Browser, server: Server, name: str) -> str:
    return browser.evaluate(in_section(server, name, "s.querySelector('.model').textContent"))


def command(server: Server, *words: str) -> None:
    subprocess.run([BINARY, *words, "-c", server.config], check=True, capture_output=True, timeout=PATIENCE)


def is_live(browser: Browser, server: Server) -> None:
    assert browser.evaluate("document.querySelector('#live.on')?.textContent") == "live"
    eventually(lambda: shown(browser, server, "main", "connections.open") == "1")


def figures_move(browser: Browser, server: Server) -> None:
    before = int(shown(browser, server, "main", "requests.total"))
    eventually(lambda: int(shown(browser, server, "main", "requests.total").replace("\u202f", "")) > before)
    eventually(lambda: float(browser.evaluate(in_section(server, "main", "s.querySelector('[data-rate]').textContent"))) > 1, within=5)
    eventually(lambda: "L" in browser.evaluate(in_section(server, "main", "s.querySelector('.spark path').getAttribute('d')")))
    heights = browser.evaluate(in_section(server, "main", "[...s.querySelectorAll('.bars rect')].map(r => Number(r.getAttribute('height')))"))
    assert len(heights) == 24 and max(heights) == 100 and min(heights) == 0
    assert "In the last" in browser.evaluate(in_section(server, "main", "s.querySelector('figcaption').textContent"))


def switch_elsewhere_is_seen(browser: Browser, server: Server) -> None:
    """And what was open stays open; the page is the same one all the time."""
    browser.evaluate("window.mine = true; document.querySelector('details[id^=n]').open = true")
    command(server, "model", server["main"].text, "coroutine")
    eventually(lambda: model_shown(browser, server, "main") == "coroutine", within=5)
    eventually(lambda: "coroutine, taken" in browser.text("#switched"), within=5)
    text = server.config.read_text()
    server.config.write_text(text.replace(f"model = {POOL.name}", "model = hybrid", 1))
    command(server, "reload")
    eventually(lambda: model_shown(browser, server, "main") == "hybrid", within=5)
    assert browser.evaluate("window.mine && document.querySelector('details[id^=n]').open")


def switch_on_the_page(browser: Browser, server: Server, name: str, model: str) -> None:
    browser.evaluate(in_section(server, name, f"s.querySelector('select').value = '{model}'"))
    browser.evaluate(in_section(server, name, "s.querySelector('button').click()"))
    eventually(lambda: model_shown(browser, server, name) == model, within=8)
    eventually(lambda: server.status()["last_switch"]["outcome"] == "taken", within=8)
    assert server.listener_status(name)["model"] == model
    eventually(lambda: f"{model}, taken" in browser.text("#switched"), within=8)
    eventually(lambda: browser.text("#live") == "live", within=8)


def nothing_to_scroll(browser: Browser, folder: Path | None) -> None:
    """To the side, in any window, with everything open."""
    for width in (320, 390, 768, 1400):
        for dark in (False, True):
            browser.window(width, dark=dark)
            browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} is too narrow"
            if folder:
                browser.screenshot(folder / f"status-{width}-{'dark' if dark else 'light'}.png")
    colors = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color"
    dark_colors = browser.evaluate(colors)
    browser.window(1200)
    assert browser.evaluate(colors) != dark_colors


def other_sites_are_kept_out(browser: Browser, server: Server) -> None:
    """A page of another origin in this browser: it may not read, frame or switch anything here."""
    target = f"http://{server['page'].text}/"
    before = server.status()["switches"]["taken"]
    browser.open(f"http://{server['main'].text}/hello")
    read = f"fetch('{target}').then(a => a.text()).then(() => 'read', () => 'refused')"
    assert browser.evaluate(read) == "refused"
    body = f"'token=x&model=process&listener={server['main'].text}'"
    for mode in ("cors", "no-cors"):
        browser.evaluate(f"fetch('{target}', {{method: 'POST', mode: '{mode}', body: new URLSearchParams({body})}}).catch(() => 0).then(() => 1)")
    framed = f"new Promise(done => {{ const f = document.createElement('iframe'); f.src = '{target}'; f.onload = () => {{ try {{ done(f.contentDocument === null) }} catch {{ done(true) }} }}; document.body.append(f) }})"
    assert browser.evaluate(framed)
    assert server.status()["switches"]["taken"] == before
    assert "its Origin is another site's" in server.errors


def policy_holds(browser: Browser) -> None:
    """What somebody managed to write into the page would not run."""
    browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken = 1\"><p style=\"color:red\">')")
    browser.evaluate("(s => { s.textContent = 'window.broken = 2'; document.body.append(s) })(document.createElement('script'))")
    assert browser.evaluate("window.broken") is None


@pytest.mark.limit(120)
def test_page_in_a_browser(serve) -> None:
    folder = os.environ.get("MODUS_TEST_SCREENSHOTS")
    main = Listener("main", POOL.name, BASIC_ROUTES, options=SIZES)
    page = Listener("page", "event-loop", 'route "/" { status { control = true } }')
    server = serve(POOL, main, page)
    customer = Customer(server["main"], "/sleep?ms=5", may_leave=True)
    with Browser() as browser:
        browser.window(1200)
        browser.open(f"http://{server['page'].text}/")
        eventually(lambda: is_live(browser, server) or True, within=10)
        figures_move(browser, server)
        switch_elsewhere_is_seen(browser, server)
        switch_on_the_page(browser, server, "main", "prefork")
        switch_on_the_page(browser, server, "page", "process")
        nothing_to_scroll(browser, Path(folder) if folder else None)
        assert browser.complaints == []
        policy_holds(browser)
        other_sites_are_kept_out(browser, server)
    customer.leave()
