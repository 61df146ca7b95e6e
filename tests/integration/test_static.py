"""Files: types, conditions, ranges, listings, and no way out of the folder."""
import email.utils
import os
import re
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from lib.clock import eventually
from lib.config import Listener
from lib.models import Model
from lib.raw import Answer, request
from lib.site import BIG, DATA, SECRET, Site, content

HTML, TEXT, BINARY = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/octet-stream"


@pytest.mark.parametrize(
    "path, kind",
    [
        ("index.html", HTML),
        ("a.txt", TEXT),
        ("UPPER.TXT", TEXT),
        ("style.css", "text/css; charset=utf-8"),
        ("script.js", "text/javascript; charset=utf-8"),
        ("data.json", "application/json"),
        ("picture.png", "image/png"),
        ("picture.svg", "image/svg+xml"),
        ("data.bin", BINARY),
        ("no-ending", BINARY),
        ("with%20space.txt", TEXT),
        ("100%25.txt", TEXT),
        ("%C3%A4%E2%82%AC.txt", TEXT),
        ("%3Cb%3E&%22.txt", TEXT),
        ("link-in.txt", TEXT),
        ("empty.txt", TEXT),
    ],
)
def test_files_and_types(site: Site, documents: Path, path: str, kind: str) -> None:
    for _ in range(2):  # from the disk, then from the cache
        a = site.main.ask(f"/files/{path}")
        assert (a.status, a.one("Content-Type")) == (200, kind)
        assert a.body == (documents / unquote(path)).read_bytes()
        assert a.one("Accept-Ranges") == "bytes"


def test_index(site: Site) -> None:
    assert site.main.ask("/files/").text == "<h1>index</h1>"
    assert site.main.ask("/files/sub/").text == "<h1>sub</h1>"
    assert site.main.ask("/files/sub/?x=y").text == "<h1>sub</h1>"


@pytest.mark.parametrize(
    "path, location",
    [("/files", "/files/"), ("/files/sub", "/files/sub/"), ("/files/sub?a=b", "/files/sub/?a=b"), ("//files//sub", "/files/sub/")],
)
def test_folders_have_a_slash(site: Site, path: str, location: str) -> None:
    a = site.main.ask(path)
    assert (a.status, a.one("Location")) == (301, location)


@pytest.mark.parametrize("path", ["missing", "missing/", "a.txt/", "a.txt/b", "sub/missing.html", "A.txt", "x" * 300, "/".join("x" * 100)])
def test_not_found(site: Site, path: str) -> None:
    assert site.main.ask(f"/files/{path}").status == 404


def test_big_file_is_the_same_bit_by_bit(site: Site) -> None:
    with site.main.connect() as wire:
        for _ in range(2):
            a = wire.ask("/files/big.bin")
            assert a.one("Content-Length") == str(len(BIG))
            assert a.body == BIG


def test_big_files_for_several_at_once(site: Site) -> None:
    """Each answer has to wait for its reader, and is not the only one that has a file open."""
    wires = [site.main.connect() for _ in range(16)]
    for wire in wires:
        wire.send(request("/files/big.bin"))
    for wire in wires:
        assert wire.answer().body == BIG
        wire.close()


def test_max_age(site: Site) -> None:
    assert site.main.ask("/aged/a.txt").one("Cache-Control") == "max-age=3600"
    assert site.main.ask("/files/a.txt").one("Cache-Control") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_files_are_only_read(site: Site, documents: Path, method: str) -> None:
    assert site.main.ask("/files/a.txt", method).status == 405
    assert (documents / "a.txt").exists()


# --- conditions ----------------------------------------------------------------------------------

FILES = ["a.txt", "data.bin"]  # one from memory, one from the disk
EPOCH = "Thu, 01 Jan 1970 00:00:00 GMT"
FAR = "Fri, 01 Jan 2100 00:00:00 GMT"


def validators(site: Site, name: str) -> tuple[str, str]:
    a = site.main.ask(f"/files/{name}")
    return a.one("ETag") or "", a.one("Last-Modified") or ""


@pytest.mark.parametrize("name", FILES)
def test_validators(site: Site, documents: Path, name: str) -> None:
    tag, modified = validators(site, name)
    assert re.fullmatch(r'"[\x21\x23-\x7e]+"', tag), "a strong tag"
    assert modified == email.utils.formatdate(int((documents / name).stat().st_mtime), usegmt=True)
    assert validators(site, name) == (tag, modified)


@pytest.mark.parametrize("second", [-(1 << 31), (1 << 33) + 5, (1 << 34) - 1])
def test_times_out_of_the_ordinary(site: Site, documents: Path, second: int) -> None:
    """Before 1970, and beyond what nanoseconds in 64 bits can say; nothing is from the future."""
    far = documents / f"far{second}.txt"
    far.write_text("far")
    os.utime(far, (second, second))
    tag, modified = validators(site, far.name)
    assert tag and email.utils.parsedate_to_datetime(modified).timestamp() <= time.time()
    assert site.main.ask(f"/files/{far.name}", fields={"If-None-Match": tag}).status == 304


@pytest.mark.parametrize("name", FILES)
def test_not_modified(site: Site, name: str) -> None:
    tag, modified = validators(site, name)
    same = [
        {"If-None-Match": tag},
        {"If-None-Match": f"W/{tag}"},
        {"If-None-Match": f'"other", {tag}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": modified},
        {"If-None-Match": tag, "If-Modified-Since": EPOCH},
        {"If-Match": tag, "If-None-Match": tag},
        {"If-None-Match": tag, "Range": "bytes=0-3"},
    ]
    with site.main.connect() as wire:
        for fields in same:
            for method in ("GET", "HEAD"):
                a = wire.ask(f"/files/{name}", method, fields)
                assert (a.status, a.one("ETag")) == (304, tag), fields
                assert a.one("Content-Length") in (None, str(len(DATA)) if name == "data.bin" else "100")


@pytest.mark.parametrize("name", FILES)
def test_modified(site: Site, name: str) -> None:
    tag, modified = validators(site, name)
    changed = [
        {"If-None-Match": '"other"'},
        {"If-None-Match": '"other"', "If-Modified-Since": modified},
        {"If-None-Match": tag.strip('"')},
        {"If-Modified-Since": EPOCH},
        {"If-Modified-Since": "yesterday"},
        {"If-Match": tag},
        {"If-Match": f'"other", {tag}'},
        {"If-Match": "*"},
        {"If-Unmodified-Since": modified},
        {"If-Unmodified-Since": FAR},
        {"If-Unmodified-Since": "nonsense"},
        {"If-Match": tag, "If-Unmodified-Since": EPOCH},
    ]
    with site.main.connect() as wire:
        for fields in changed:
            assert wire.ask(f"/files/{name}", fields=fields).status == 200, fields


@pytest.mark.parametrize("name", FILES)
def test_precondition_failed(site: Site, name: str) -> None:
    tag, _ = validators(site, name)
    failing = [{"If-Match": '"other"'}, {"If-Match": f"W/{tag}"}, {"If-Unmodified-Since": EPOCH}, {"If-Match": '"x"', "If-None-Match": tag}]
    with site.main.connect() as wire:
        for fields in failing:
            assert wire.ask(f"/files/{name}", fields=fields).status == 412, fields
        assert wire.ask(f"/files/{name}").status == 200


# --- ranges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_single_ranges(site: Site, name: str) -> None:
    data = content(name)
    size = len(data)
    ranges = {
        "0-0": (0, 0),
        "0-9": (0, 9),
        "10-19": (10, 19),
        f"{size - 1}-": (size - 1, size - 1),
        "5-": (5, size - 1),
        "-1": (size - 1, size - 1),
        "-10": (size - 10, size - 1),
        f"-{size + 5}": (0, size - 1),
        f"90-{size + 5}": (90, size - 1),
        f"0-{size - 1}": (0, size - 1),
        "5-99999999999999999999": (5, size - 1),
    }
    with site.main.connect() as wire:
        for text, (first, last) in ranges.items():
            a = wire.ask(f"/files/{name}", fields={"Range": f"bytes={text}"})
            assert a.status == 206, text
            assert a.one("Content-Range") == f"bytes {first}-{last}/{size}"
            assert a.body == data[first : last + 1]
            assert a.one("ETag") and a.one("Last-Modified")


def parts(a: Answer) -> list[tuple[str, bytes]]:
    """The Content-Range and the bytes of each part."""
    kind = re.fullmatch(r"multipart/byteranges; boundary=([0-9A-Za-z'()+_,./:=?-]{1,70})", a.one("Content-Type") or "")
    assert kind, a.fields
    boundary = kind[1].encode()
    pieces = re.split(rb"(?:^|\r\n)--" + re.escape(boundary), a.body)
    assert pieces[0] == b"" and pieces[-1].strip() == b"--", a.body[-100:]
    found = []
    for piece in pieces[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        assert "Content-Type" in fields
        found.append((fields["Content-Range"], body))
    return found


@pytest.mark.parametrize("name", FILES)
def test_several_ranges(site: Site, name: str) -> None:
    data = content(name)
    size = len(data)
    with site.main.connect() as wire:
        a = wire.ask(f"/files/{name}", fields={"Range": "bytes=0-4, 20-29 ,-5"})
        assert (a.status, a.one("Content-Range")) == (206, None)
        assert parts(a) == [
            (f"bytes 0-4/{size}", data[0:5]),
            (f"bytes 20-29/{size}", data[20:30]),
            (f"bytes {size - 5}-{size - 1}/{size}", data[-5:]),
        ]
        a = wire.ask(f"/files/{name}", "GET", {"Range": f"bytes=0-4,{size}-,10-14"})
        assert [r for r, _ in parts(a)] == [f"bytes 0-4/{size}", f"bytes 10-14/{size}"], "what can't be satisfied is left out"
        sixteen = ",".join(f"{i * 5}-{i * 5 + 1}" for i in range(16))
        assert len(parts(wire.ask(f"/files/{name}", fields={"Range": f"bytes={sixteen}"}))) == 16


def test_large_parts_of_a_big_file(site: Site) -> None:
    a = site.main.ask("/files/big.bin", fields={"Range": "bytes=1000000-3999999,5000000-8999999"})
    assert [body for _, body in parts(a)] == [BIG[1_000_000:4_000_000], BIG[5_000_000:9_000_000]]


def test_overlapping_ranges_cost_no_more_than_the_file(site: Site) -> None:
    a = site.main.ask("/files/data.bin", fields={"Range": "bytes=" + ",".join(["0-"] * 10)})
    assert a.status in (200, 206)
    assert len(a.body) < len(DATA) + 2000


@pytest.mark.parametrize(
    "value",
    [
        "bytes=5-2",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=0-4,x",
        "lines=0-4",
        "bytes 0-4",
        "bytes=" + ",".join(f"{i * 2}-{i * 2}" for i in range(40)),
        "bytes=0x0-0x4",
        "bytes=+0-4",
        "bytes=0- 4",
    ],
)
def test_ranges_that_are_none_are_ignored(site: Site, value: str) -> None:
    a = site.main.ask("/files/a.txt", fields={"Range": value})
    assert (a.status, a.body) == (200, content("a.txt"))


@pytest.mark.parametrize("name, value", [("a.txt", "100-"), ("a.txt", "100-200"), ("a.txt", "-0"), ("data.bin", "999999-"), ("a.txt", "500-,600-"), ("empty.txt", "0-")])
def test_unsatisfiable(site: Site, name: str, value: str) -> None:
    a = site.main.ask(f"/files/{name}", fields={"Range": f"bytes={value}"})
    assert a.status == 416
    assert a.one("Content-Range") == f"bytes */{len(content(name)) if name != 'empty.txt' else 0}"


def test_ranges_are_for_get(site: Site) -> None:
    a = site.main.ask("/files/a.txt", "HEAD", {"Range": "bytes=0-4"})
    assert (a.status, a.one("Content-Length")) == (200, "100")


@pytest.mark.parametrize("name", FILES)
def test_if_range(site: Site, name: str) -> None:
    tag, modified = validators(site, name)
    for value, status in [(tag, 206), (modified, 206), ('"other"', 200), (f"W/{tag}", 200), (EPOCH, 200), (FAR, 200)]:
        a = site.main.ask(f"/files/{name}", fields={"Range": "bytes=0-4", "If-Range": value})
        assert a.status == status, value
        assert a.body == (content(name)[:5] if status == 206 else content(name))


# --- no way out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "%2e%2e%2fsecret.txt",
        "%2E%2E%2Fsecret.txt",
        "sub/../../secret.txt",
        "sub/..%2f..%2fsecret.txt",
        "..%5csecret.txt",
        "..\\secret.txt",
        "....//secret.txt",
        "%252e%252e/secret.txt",
        "..%252fsecret.txt",
        "%c0%ae%c0%ae/secret.txt",
        "..;/secret.txt",
        ".%00./secret.txt",
        "a.txt%00",
        "%00/../secret.txt",
        "link-out.txt",
        "link-absolute.txt",
        "link-folder-out/secret.txt",
        "link-folder-out/",
        "bare/link-out.txt",
        "loop",
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "../../../../../../../../etc/passwd",
    ],
)
def test_no_way_out(site: Site, path: str) -> None:
    for route in ("files", "list"):
        a = site.main.ask(f"/{route}/{path}")
        assert a.status in (400, 403, 404), a.status
        assert SECRET not in a.body.decode("latin-1")
        assert b"root:" not in a.body


@pytest.mark.parametrize("path", [".hidden/x.txt", ".htaccess", ".hidden/", ".hidden", "sub/.git/config", "%2ehtaccess", "sub/%2Egit/config", "./.htaccess"])
def test_dot_files_are_refused(site: Site, path: str) -> None:
    for route in ("files", "list"):
        a = site.main.ask(f"/{route}/{path}")
        assert a.status in (403, 404)
        assert SECRET not in a.text


def test_well_known(site: Site) -> None:
    a = site.main.ask("/files/.well-known/acme-challenge/token")
    assert (a.status, a.text) == (200, "token")
    for path in (".well-known/.secret", "sub/.well-known/x", ".well-knownx"):
        assert site.main.ask(f"/files/{path}").status == 404


def test_what_is_no_file_is_refused(site: Site, documents: Path) -> None:
    pipe = documents / "pipe"
    os.mkfifo(pipe)
    try:
        assert site.main.ask("/files/pipe").status in (403, 404)
    finally:
        pipe.unlink()


# --- listings ------------------------------------------------------------------------------------


def test_listing_is_off_unless_told(site: Site) -> None:
    for path in ("/files/bare/", "/files/bare/inner/"):
        a = site.main.ask(path)
        assert a.status in (403, 404)
        assert "x.txt" not in a.text and "y.txt" not in a.text


def test_listing(site: Site) -> None:
    a = site.main.ask("/list/bare/")
    assert (a.status, a.one("Content-Type")) == (200, HTML)
    links = re.findall(r'href="([^"]*)"', a.text)
    assert {"x.txt", "inner/"} <= set(links)
    assert "link-out.txt" not in a.text
    assert site.main.ask("/list/").text == "<h1>index</h1>", "an index goes before a listing"


def test_listing_shows_what_can_be_asked_for(site: Site, documents: Path) -> None:
    folder = documents / "listed"
    folder.mkdir()
    names = ["plain.txt", "with space", "<i>&\"'.txt", "100%.txt", "a?b#c;d", "\u00e4.txt", "javascript:alert(1)"]
    try:
        for name in [*names, ".secret"]:
            (folder / name).write_text(name)
        page = site.main.ask("/list/listed/").text
        assert ".secret" not in page and "<i>" not in page
        links = [link for link in re.findall(r'href="([^"]*)"', page) if not link.startswith("..")]
        assert len(links) == len(names)
        with site.main.connect() as wire:
            assert {wire.ask(f"/list/listed/{link}").body.decode() for link in links} == set(names)
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


# --- changes -------------------------------------------------------------------------------------


def test_changes_are_seen(serve, model: Model, tmp_path: Path) -> None:
    """Of a file that is kept in memory, and of one that is not."""
    main = serve(model, Listener("main", model.name, f'route "/" {{ static {{ root = "{tmp_path}" }} }}'))["main"]
    sizes = {tmp_path / "small.txt": 100, tmp_path / "large.txt": 50_000}

    def shows(text: str) -> bool:
        for file, size in sizes.items():
            a = main.ask(f"/{file.name}")
            assert (a.status, a.text) == (200, text * size)
        return True

    def write(text: str, suffix: str = "") -> None:
        for file, size in sizes.items():
            Path(f"{file}{suffix}").write_text(text * size)

    write("a")
    assert shows("a") and shows("a")
    write("b", ".new")
    for file in sizes:
        Path(f"{file}.new").rename(file)
    eventually(lambda: shows("b"), within=1.5, what="replaced")
    write("c")
    eventually(lambda: shows("c"), within=1.5, what="written over")
    for file in sizes:
        file.unlink()
    eventually(lambda: all(main.ask(f"/{file.name}").status == 404 for file in sizes), within=1.5, what="gone")


def test_file_that_shrinks_while_it_is_sent_is_cut(serve, model: Model, tmp_path: Path) -> None:
    server = serve(model, Listener("main", model.name, f'route "/" {{ static {{ root = "{tmp_path}" }} }}'))
    file = tmp_path / "shrinking.bin"
    file.write_bytes(bytes(40 << 20))
    with server["main"].connect(buffers=64 << 10) as wire:
        wire.send(request("/shrinking.bin"))
        assert wire.head().status == 200
        os.truncate(file, 0)
        with pytest.raises(ConnectionError):
            wire.read_exactly(40 << 20)
