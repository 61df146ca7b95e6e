"""The command itself: checking a file, explaining it, and the ways to be refused."""
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from lib.clock import PATIENCE
from lib.config import Listener
from lib.models import MODELS, Model
from lib.server import BINARY, ROOT, for_others, refuses
from lib.site import BASIC_ROUTES, SIZES


def modus(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=PATIENCE, cwd=cwd)


@pytest.fixture
def config(tmp_path: Path):
    def write(text: str) -> Path:
        file = tmp_path / "modus.conf"
        file.write_text(text)
        return file

    return write


def good(model: Model | None = None, **options) -> str:
    return Listener("main", (model or MODELS[0]).name, BASIC_ROUTES, options=options).text() + "\n"


# --- words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["--version", "-V", "-v"])
def test_version(word: str) -> None:
    done = modus(word)
    assert done.returncode == 0
    assert re.match(r"modus \d+\.\d+", done.stdout)
    for library in ("libuv", "OpenSSL", "llhttp", "libconfuse"):
        assert re.search(rf"\b{library} \d+\.\d", done.stdout)


@pytest.mark.parametrize("words", [["status", "--help"], ["reload", "-h"], ["-t", "--help"]], ids=" ".join)
def test_help_is_help_wherever_it_is_asked_for(words: list[str]) -> None:
    done = modus(*words)
    assert done.returncode == 0 and done.stdout.startswith("usage: modus") and not done.stderr


def test_help() -> None:
    done = modus("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(word in done.stdout for word in ("-c FILE", "-t", "explain", "models", "handlers", "--version", "stop", "status", "logs reopen"))


@pytest.mark.parametrize(
    "words, said",
    [(["start"], '"start"'), (["-t", "modus.conf"], '"modus.conf"'), (["-c"], "-c needs"), (["-t", "explain"], "too many")],
)
def test_usage_names_the_word(words: list[str], said: str) -> None:
    assert said in modus(*words).stderr.splitlines()[0]


@pytest.mark.parametrize("words", [["nonsense"], ["--nonsense"], ["-c"], ["-t", "explain"], ["models", "handlers"]])
def test_usage(words: list[str]) -> None:
    done = modus(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage" in done.stderr


def test_models() -> None:
    done = modus("models")
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if not line.startswith(" ")}
    assert list(lines) == [m.name for m in MODELS]
    for m in MODELS:
        assert m.sized_by in done.stdout, "options and their defaults"


def test_handlers() -> None:
    done = modus("handlers")
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert {"text", "static", "echo", "sleep", "block", "spin", "status"} <= set(names)
    for option in ("body", "root", "listing", "duration", "iterations", "max"):
        assert re.search(rf"\b{option}\b", done.stdout)


# --- man pages -----------------------------------------------------------------------------------


def page(name: str) -> str:
    return re.sub(r"\\f[BIR]", "", (ROOT / "server" / name).read_text()).replace("\\-", "-")


def test_man_page_names_all_keys() -> None:
    text = page("modus.conf.5")
    done = modus("explain", "-c", ROOT / "conf/reference.conf")
    assert done.returncode == 0
    keys = {line.split()[0] for line in done.stdout.partition("At most")[0].splitlines() if line.strip()}
    missing = {key for key in keys if not re.search(rf"\b{key}\b", text)}
    assert len(keys) > 30 and not missing, missing
    assert all(re.search(rf"^\.B {m.name}$", text, re.M) for m in MODELS)


def test_man_page_names_all_commands() -> None:
    text = page("modus.1")
    verbs = set(re.findall(r"^(?:usage:)? +modus ([a-z]+)", modus("--help").stdout, re.M))
    missing = {verb for verb in verbs if not re.search(rf"\b{verb}\b", text)}
    assert len(verbs) >= 9 and not missing, missing


@pytest.mark.skipif(not shutil.which("groff"), reason="no groff")
@pytest.mark.parametrize("name", ["modus.1", "modus.conf.5"])
def test_man_page_is_well_formed(name: str) -> None:
    done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", ROOT / "server" / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- checking ------------------------------------------------------------------------------------


def test_good_files(config, model: Model) -> None:
    done = modus("-t", "-c", config(good(model, **SIZES)))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["modus.conf", "production.conf"])
def test_shipped_files(name: str) -> None:
    file = ROOT / "conf" / name
    if not file.exists():
        pytest.skip(f"no {name}")
    done = modus("explain", "-c", file)
    assert done.returncode == 0, done.stderr
    if name == "modus.conf":
        assert all(m.name in done.stdout for m in MODELS), "the tour shows every model"


BAD = {
    "unknown key": ('listen "127.0.0.1:0" {\n  modell = prefork\n}', 2, "modell.*model"),
    "unknown key on top": ('userr = "x"\n' + good(), 1, "userr.*user"),
    "unknown section": ('listenn "127.0.0.1:0" {\n}', 1, "listenn.*listen"),
    "unknown model": ('listen "127.0.0.1:0" {\n  model = preform\n}', 2, "preform.*prefork"),
    "unknown handler": ('listen "127.0.0.1:0" {\n  route "/" {\n    texxt { }\n  }\n}', 3, "texxt.*text"),
    "unknown option": ('listen "127.0.0.1:0" {\n  route "/" { text {\n    bodi = "x"\n  } }\n}', 3, "bodi.*body"),
    "repeated key": ('listen "127.0.0.1:0" {\n  threads = 1\n  # once more\n  threads = 2\n}', 4, "threads"),
    "repeated route": ('listen "127.0.0.1:0" {\n  route "/" { text { } }\n  route "/" { echo { } }\n}', 3, '"/"'),
    "repeated address": ('listen "127.0.0.1:8" {\n}\nlisten "127.0.0.1:8" {\n}', 3, "127.0.0.1:8"),
    "number out of range": ('listen "127.0.0.1:0" {\n  threads = 0\n}', 2, "threads"),
    "duration without a unit": ('listen "127.0.0.1:0" {\n  header_timeout = 10\n}', 2, "header_timeout"),
    "unknown unit": ('listen "127.0.0.1:0" {\n  max_body_size = 5x\n}', 2, "max_body_size"),
    "bad port": ('listen "127.0.0.1:70000" {\n}', 1, "port"),
    "bad address": ('listen "localhost:80" {\n}', 1, "localhost"),
    "missing brace": ('listen "127.0.0.1:0" {\n  model = prefork\n', 1, "\\}"),
    "brace too many": (good() + "}\n", good().count("\n") + 1, "\\}"),
    "open string": ('listen "127.0.0.1:0 {\n}', 1, '"'),
    "no listener": ("# nothing\n", 1, "listen"),
    "two handlers": ('listen "127.0.0.1:0" {\n  route "/" {\n    text { }\n    echo { }\n  }\n}', 4, "second"),
    "no handler": ('listen "127.0.0.1:0" {\n  route "/" { }\n}', 2, "handler"),
    "no route": (good() + 'listen "127.0.0.1:1" {\n  threads = 2\n}', good().count("\n") + 1, 'needs a route.*route "/" {'),
    "route without a slash": ('listen "127.0.0.1:0" {\n  route "a" { text { } }\n}', 2, "/"),
    "http handler for tcp": ('listen "127.0.0.1:0" {\n  protocol = tcp\n  text { }\n}', 3, "tcp"),
    "routes for tcp": ('listen "127.0.0.1:0" {\n  protocol = tcp\n  route "/" { echo { } }\n}', 3, "tcp"),
    "folder that is not there": ('listen "127.0.0.1:0" {\n  route "/" {\n    static { root = "nowhere" } } }', 3, "nowhere"),
    "option that must be given": ('listen "127.0.0.1:0" {\n  route "/" {\n    static { } } }', 3, "root"),
    "body that no client gets": ('listen "127.0.0.1:0" {\n  route "/" {\n    text { status = 205 body = "x" } } }', 3, "205 has no body"),
    "user that is not there": ('user = "nobody-of-that-name"\n' + good(), 1, "nobody-of-that-name"),
    "nothing near on top": ('server = "x"\n' + good(), 1, "valid here: .*user.*listen"),
    "nothing near in a section": ('listen "127.0.0.1:0" {\n  upstream = "x"\n}', 2, "valid here: .*model.*route"),
    "lab": ('lab { }\n' + good(), 1, "lab.*not in this build"),
    "error log on standard output": ('error_log = "stdout"\n' + good(), 1, "error_log.*stderr"),
    "access log that is only on": ('listen "127.0.0.1:0" {\n  access_log = on\n}', 2, "access_log.*stdout, stderr, off or a path"),
    "reserved handler": ('listen "127.0.0.1:0" {\n  route "/" { proxy { } }\n}', 2, "not in this build .*static.*status"),
}


@pytest.mark.parametrize("text, line, words", BAD.values(), ids=BAD.keys())
def test_bad_files(config, text: str, line: int, words: str) -> None:
    """The same sentence for a check and for a start, on one line, with file and line."""
    file = config(text)
    for command in (["-t"], [], ["explain"]):
        if command == ["explain"] and ("user" in words or "nowhere" in words or "nobody" in words or "no body" in words):
            continue  # it only reads the file
        done = modus(*command, "-c", file)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{file}:{line}: "), done.stderr
        assert re.search(words, done.stderr) and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("words", [[], ["-t"], ["explain"], ["status"]])
def test_no_file_at_all(tmp_path: Path, words: list[str]) -> None:
    """Who names none is told where one was looked for."""
    installed = re.search(r"or (/\S+modus\.conf) if", modus("--help").stdout)[1]
    if Path(installed).exists():
        pytest.skip("modus is installed here")
    done = modus(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"modus: there is neither conf/modus.conf in this folder nor {installed}: name a file with -c\n"


@pytest.mark.parametrize("what", ["missing", "folder", "nul", "pipe"])
def test_what_is_no_file(tmp_path: Path, what: str) -> None:
    file = tmp_path / "modus.conf"
    if what == "folder":
        file.mkdir()
    elif what == "nul":
        file.write_bytes(good().encode() + b"\0")
    elif what == "pipe":
        os.mkfifo(file)
    for command in (["-t"], []):
        done = modus(*command, "-c", file)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{file}:") and done.stderr.count("\n") == 1


def test_check_binds_nothing_and_opens_no_log(serve, model: Model, config, tmp_path: Path) -> None:
    running = serve(model, Listener("main", model.name, BASIC_ROUTES))["main"]
    text = Listener("main", model.name, BASIC_ROUTES, address=running.text, options={"access_log": "access.log"}).text()
    file = config(f'error_log = "error.log"\npid_file = "modus.pid"\n{text}\n')
    assert modus("-t", "-c", file).returncode == 0
    assert [f.name for f in tmp_path.iterdir()] == ["modus.conf"]


@pytest.mark.parametrize(
    "top, options, address, line, reason",
    [
        ("error_log = none/e.log", {}, "", 1, "No such file"),
        ("error_log = conf.d", {}, "", 1, "Is a directory"),
        ("pid_file = none/pid", {}, "", 1, "No such file"),
        ("pid_file = modus.conf", {}, "", 1, "is no pid file"),
        ("control = none/sock", {}, "", 1, "No such file"),
        ("control = modus.conf", {}, "", 1, "no socket"),
        ("control = /tmp/" + "a" * 103, {}, "", 1, "108 bytes"),
        ("", {"access_log": "none/a.log"}, "", 0, "No such file"),
        ("", {}, "unix:none/sock", 2, "No such file"),
    ],
)
def test_check_refuses_what_the_start_would(config, tmp_path: Path, top, options, address, line, reason) -> None:
    (tmp_path / "conf.d").mkdir()
    section = Listener("main", MODELS[0].name, BASIC_ROUTES, address=address or "127.0.0.1:0", options=options).text()
    file = config(f"{top}\n{section}\n")
    at = line or 1 + next(i for i, l in enumerate(file.read_text().splitlines()) if "access_log" in l)
    for words in (["-t", "-c", file], ["-c", file]):
        done = modus(*words)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{file}:{at}: ") and reason in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is needed")
def test_check_knows_what_the_user_may(config, tmp_path: Path) -> None:
    file = config("error_log = /e.log\n" + good())
    file.chmod(0o644)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.owner() == "root" and folder != Path("/") and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    nobody = pwd.getpwnam("nobody").pw_uid
    done = subprocess.run([for_others(tmp_path), "-t", "-c", file], capture_output=True, text=True, user=nobody)
    assert done.returncode == 1
    assert done.stderr == f"{file}:1: cannot write /e.log: its folder: Permission denied\n"


# --- explaining ----------------------------------------------------------------------------------


def test_explain(config, model: Model) -> None:
    done = modus("explain", "-c", config(good(model, threads=7, header_timeout="3s")))
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    threads = next(r for r in rows if r[:1] == ["threads"])
    assert threads[1] == "7" and re.search(r"modus\.conf:\d+$", threads[2])
    assert ("not used by" in " ".join(threads)) == (model.name in ("process", "prefork"))
    assert next(r for r in rows if r[:1] == ["body_timeout"])[1:3] == ["20s", "default"]
    assert next(r for r in rows if r[:1] == ["header_timeout"])[1] == "3s"
    for word in ("processes", "threads", "descriptors", "memory"):
        assert word in done.stdout


def test_explain_shows_no_values_of_its_own(config) -> None:
    """Every key of the manual is there."""
    done = modus("explain", "-c", config(good()))
    for key in (
        "user pid_file control error_log log_level drain_timeout model processes loops threads queue queue_timeout "
        "max_connections backlog gil header_timeout body_timeout handler_timeout send_timeout keepalive_timeout "
        "keepalive_requests max_header_size max_body_size access_log log_format"
    ).split():
        assert re.search(rf"^\s*{key}\s", done.stdout, re.MULTILINE), key


# --- starting ------------------------------------------------------------------------------------


def test_second_server_on_the_same_port(serve, model: Model, config) -> None:
    first = serve(model, Listener("main", model.name, BASIC_ROUTES))
    file = config(Listener("main", model.name, BASIC_ROUTES, address=first["main"].text).text())
    done = modus("-c", file)
    assert done.returncode == 1
    assert re.fullmatch(rf"{file}:1: .*{first['main'].text}.*\n", done.stderr), done.stderr
    assert first["main"].ask("/hello").status == 200


def test_second_server_leaves_no_trace(serve, model: Model, config, tmp_path: Path) -> None:
    """What it had bound before it failed is free again, and it has left no pid file."""
    first = serve(model, Listener("main", model.name, BASIC_ROUTES))
    free = Listener("free", model.name, BASIC_ROUTES, address="unix:free.sock").text()
    taken = Listener("taken", model.name, BASIC_ROUTES, address=first["main"].text).text()
    assert modus("-c", config(free + "\n" + taken)).returncode == 1
    assert [f.name for f in tmp_path.iterdir()] == ["modus.conf"]


def test_logs_that_can_not_be_opened(config) -> None:
    for text in ('error_log = "no/such/folder.log"\n' + good(), good(access_log="no/such/folder.log")):
        done = modus("-c", config(text))
        assert done.returncode == 1
        assert re.match(r"\S+modus\.conf:\d+: ", done.stderr) and "no/such/folder.log" in done.stderr


def said_at_its_start(file: Path, user: str | None = None) -> str:
    """Standard error until it is ready; then it is stopped."""
    with subprocess.Popen([for_others(file.parent), "-c", file], stderr=subprocess.PIPE, text=True, user=user) as server:
        said = ""
        for line in server.stderr:
            said += line
            if "ready" in line:
                break
        server.send_signal(signal.SIGTERM)
    assert server.returncode == 0, said
    return said


@pytest.mark.parametrize("own", [True, False], ids=["own", "other"])
def test_user_without_root(own: bool) -> None:
    """It can't be changed: that is said, unless there is nothing to change."""
    me = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    with tempfile.TemporaryDirectory(prefix="modus-test-") as folder:
        file = Path(folder) / "modus.conf"
        file.write_text(f'pid_file = ""\ncontrol = ""\nuser = "{me if own else "root"}"\n' + good())
        Path(folder).chmod(0o755)
        said = said_at_its_start(file, me if os.geteuid() == 0 else None)
        warned = [line for line in said.splitlines() if "warn" in line]
        assert len(warned) == (0 if own else 1), said
        if not own:
            assert f"{file}:3: " in warned[0] and '"root"' in warned[0]


def test_relative_paths_start_at_the_file(serve, model: Model) -> None:
    server = serve(model, Listener("main", model.name, BASIC_ROUTES, options={"access_log": "access.log"}), pid_file="the.pid")
    assert (server.folder / "the.pid").read_text() == f"{server.pid}\n"
    assert (server.folder / "access.log").exists()
    server.signal(15)
    assert server.wait() == 0
    assert not (server.folder / "the.pid").exists()
    assert refuses(server["main"])
