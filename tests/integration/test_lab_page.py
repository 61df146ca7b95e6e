"""The lab's page in a browser, from results that nobody measured: that it is one file, can be read on a
phone, in the dark and by those who don't see plots, and gives the answer first."""
import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from lib.browser import Browser
from lib.lab_results import results
from lib.server import BINARY

pytestmark = pytest.mark.slow  # a browser: once, and alone

WIDTHS = (320, 390, 768, 1200)
NASTY = "http://x/\"><script>window.ran = 1</script><img src=http://127.0.0.1:1/i onerror='window.ran = 2'>"


def again(results: Path, out: Path) -> subprocess.CompletedProcess:
    return subprocess.run([BINARY, "lab", "--again", results, "--out", out], capture_output=True, text=True, timeout=60)


def page(folder: Path, change: Callable[[dict], None] = lambda r: None, repeats: int = 3) -> tuple[Path, str]:
    """The page, and the table on the terminal."""
    made = results(repeats)
    change(made)
    (folder / "results.json").write_text(json.dumps(made))
    run = again(folder / "results.json", folder)
    assert run.returncode == 0, run.stderr
    return folder / "report.html", run.stdout


@pytest.fixture(scope="module")
def browser():
    with Browser() as one:
        yield one


def picks(browser: Browser) -> dict[str, str]:
    """What the answer says: row, model."""
    return browser.evaluate("""Object.fromEntries([...document.querySelectorAll('.choices tbody tr')].map(r =>
        [r.querySelector('a').textContent, [...r.querySelector('.pick').childNodes].filter(n => n.nodeName !== 'SMALL').map(n => n.textContent).join('')]))""")


def text_of(browser: Browser, selector: str) -> str:
    """With plain spaces between numbers and units."""
    return browser.text(selector).replace("\u00a0", " ")


def shows(browser: Browser, file: Path) -> None:
    browser.complaints.clear()
    browser.requests.clear()
    browser.window(1200)
    browser.open(file.as_uri())


def asks_nobody(browser: Browser, file: Path) -> None:
    assert browser.complaints == []
    assert [r for r in browser.requests if r != file.as_uri() and not r.startswith("data:")] == []


def nothing_to_scroll(browser: Browser, name: str) -> None:
    """To the side, in any window, with everything open."""
    folder = os.environ.get("MODUS_TEST_SCREENSHOTS")
    for width in WIDTHS:
        for dark in (False, True):
            browser.window(width, dark=dark)
            if folder:
                browser.screenshot(Path(folder) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
            browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{width} is too narrow"
            browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = false })")


def plots_can_be_read(browser: Browser) -> None:
    """On a phone: text of at least 11 px, whole, and no name over another."""
    browser.window(390)
    small = browser.evaluate("""[...document.querySelectorAll('figure svg')].map(s =>
        s.getBoundingClientRect().width / s.viewBox.baseVal.width * 13).filter(px => px < 11)""")
    assert small == []
    cut = browser.evaluate("""[...document.querySelectorAll('figure svg text')].filter(t => {
        const b = t.getBoundingClientRect(), s = t.closest('svg').getBoundingClientRect();
        return b.left < s.left - 1 || b.right > s.right + 1 || b.top < s.top - 3 || b.bottom > s.bottom + 3
    }).map(t => t.closest('figure').textContent.slice(0, 40) + ': ' + t.textContent)""")
    assert cut == []
    covered = browser.evaluate("""[...document.querySelectorAll('figure svg')].flatMap(s => {
        const all = [...s.querySelectorAll('text')].map(t => [t, t.getBBox()]);
        return all.flatMap(([t, a], i) => all.slice(i + 1).filter(([u, b]) =>
            a.x + 1 < b.x + b.width && b.x + 1 < a.x + a.width && a.y + 4 < b.y + b.height && b.y + 4 < a.y + a.height)
            .map(([u]) => s.parentNode.textContent.slice(0, 30) + ': ' + t.textContent + ' / ' + u.textContent)) })""")
    assert covered == []


def plots_are_told(browser: Browser) -> None:
    """To those who don't see them."""
    untold = browser.evaluate("""[...document.querySelectorAll('figure')].filter(f => {
        const s = f.querySelector('svg[role=img]');
        return !s || s.getAttribute('aria-label').length < 40 || f.querySelectorAll('details table tbody tr').length < 1
    }).map(f => f.textContent.slice(0, 60))""")
    assert untold == []
    assert browser.evaluate("document.querySelectorAll('figure').length") > 20
    assert browser.evaluate("[...document.querySelectorAll('svg')].every(s => s.matches('[role=img], [aria-hidden=true]'))")


def links_lead_somewhere(browser: Browser) -> None:
    lost = browser.evaluate("""[...document.querySelectorAll('a')].map(a => a.getAttribute('href')).filter(h =>
        !h.startsWith('#') || !document.getElementById(decodeURIComponent(h.slice(1))))""")
    assert lost == []


def says_which_loop(browser: Browser) -> None:
    silent = browser.evaluate("""[...document.querySelectorAll('article, figure')].filter(f =>
        !/closed loop|open loop|batch/.test(f.textContent)).map(f => f.textContent.slice(0, 60))""")
    assert silent == []


def dark_is_dark(browser: Browser) -> None:
    colors = "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.querySelector('.l.s5')).stroke"
    browser.window(1200)
    light = browser.evaluate(colors)
    browser.window(1200, dark=True)
    assert browser.evaluate(colors) != light


def prints(browser: Browser) -> None:
    """In light colours, whatever the screen has."""
    browser.window(800, dark=True)
    pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=True)["data"])
    assert pdf.startswith(b"%PDF") and len(pdf) > 20000
    browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.limit(120)
def test_page(browser: Browser, tmp_path: Path) -> None:
    file, table = page(tmp_path)
    shows(browser, file)
    assert picks(browser) == {
        "Handlers that wait": "coroutine", "Handlers that compute": "any", "Cheap requests beside heavy ones": "event-loop",
        "Many idle connections": "event-loop", "Plain small answers": "event-loop", "Handlers that leak or crash": "process",
    }
    why = text_of(browser, ".choices")
    assert "prefork serves 8 at a time: its 8 workers were busy 99 % of the time" in why
    assert "20,000 would take" in why and "not measured" in why and "; at its dearest " in why
    assert browser.evaluate("document.querySelectorAll('#how li').length") == 10
    assert "1.9 times worse with it" in text_of(browser, "#gil") and "The same with and without it, within the noise: an answer that waits 50 ms" in text_of(browser, "#gil")
    assert "not under an interpreter lock: thread-pool has requests a second of" in why
    assert "In the notes threads took 3.7 times the time of processes" in text_of(browser, "#notes")
    loops = text_of(browser, "#loops")
    assert "so 192 of 180,000 answers (0.1 %) took 100 ms or longer" in loops
    assert "2000 a second, and 2400 of 12,000 answers (20 %) took 100 ms or longer" in loops
    assert browser.evaluate("document.querySelectorAll('.warning').length") == 0
    assert "\u2014" not in browser.text("body") and "-1" not in browser.text("main").replace("2026-11", "")
    links_lead_somewhere(browser)
    says_which_loop(browser)
    plots_are_told(browser)
    nothing_to_scroll(browser, "lab")
    plots_can_be_read(browser)
    dark_is_dark(browser)
    prints(browser)
    asks_nobody(browser, file)
    assert all(len(line) <= 80 for line in table.splitlines()), "the table is too wide"
    assert "=> coroutine (256 connections)" in table and "Which model, on this machine?" in table


def spoil(made: dict) -> None:
    """An unfinished run with a foreign server of an odd name, disturbed rounds, and nobody pinned."""
    made["whole"] = made["machine"]["pinned"] = False
    made["machine"]["cpu"] = NASTY
    made["command"] = made["config"] = NASTY + "\n\x1b[2J"
    made["servers"].append({"name": NASTY, "foreign": True, "workers": 0, "threads": 0, "sizes": ""})
    made["series"] = [s for s in made["series"] if s["server"] != "hybrid" and s["load"] != "mixed"]
    foreign = [{**s, "server": NASTY, "rounds": [{**r, "cpu_us": None, "pss_kib": None} for r in s["rounds"]]}
               for s in made["series"] if s["server"] == "event-loop" and s["load"] in ("hello", "sleep")]
    for s in made["series"][::3]:
        s["rounds"][0].update(trusted=False, doubt=NASTY)
    made["series"][1]["rounds"][1]["error"] = NASTY
    made["series"] += foreign


@pytest.mark.limit(120)
def test_page_of_a_spoilt_run(browser: Browser, tmp_path: Path) -> None:
    file, table = page(tmp_path, spoil)
    shows(browser, file)
    assert browser.evaluate("window.ran") is None
    assert browser.evaluate("document.querySelectorAll('script, main img').length") == 0
    warnings = browser.evaluate("[...document.querySelectorAll('.warning')].map(w => w.textContent).join(' ')")
    assert "ended before its time" in warnings and "shared the CPUs" in warnings and "rounds failed or were disturbed" in warnings
    assert "Not measured: hybrid." in browser.text("#load-sleep")
    assert "measured beside" in browser.text("#load-hello")
    assert "Left out: 1 round of" in browser.text("main")
    assert NASTY in browser.text("#left-out")
    links_lead_somewhere(browser)
    nothing_to_scroll(browser, "lab-spoilt")
    plots_can_be_read(browser)
    asks_nobody(browser, file)
    assert "\x1b" not in table


def test_page_of_one_repeat_and_one_model(browser: Browser, tmp_path: Path) -> None:
    def alone(made: dict) -> None:
        made["servers"] = made["servers"][:1]
        made["series"] = [s for s in made["series"] if s["server"] == "process" and s["load"] in ("hello", "once")]
    file, _ = page(tmp_path, alone, repeats=1)
    shows(browser, file)
    assert picks(browser)["Plain small answers"] == "process"
    assert "no other can be chosen" in browser.text("#load-hello")
    links_lead_somewhere(browser)
    nothing_to_scroll(browser, "lab-alone")
    asks_nobody(browser, file)


def test_nothing_measured(browser: Browser, tmp_path: Path) -> None:
    file, _ = page(tmp_path, lambda made: made.update(series=[], whole=False))
    shows(browser, file)
    assert "ended before its time" in browser.text(".warning")
    links_lead_somewhere(browser)
    asks_nobody(browser, file)


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{")
    run = again(tmp_path / "results.json", tmp_path)
    assert run.returncode == 1 and run.stderr.count("\n") == 1 and "results.json: this is not JSON" in run.stderr
    assert not (tmp_path / "report.html").exists()
    page(tmp_path)
    run = again(tmp_path / "results.json", tmp_path / "results.json/none")
    assert run.returncode == 1 and "Not a directory" in run.stderr
