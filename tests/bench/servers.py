# SPDX-License-Identifier: MIT
"""The servers that are compared: how each is configured, started, asked and stopped.

Everybody gets the same files, the same certificate and one CPU, writes no access log, keeps connections
alive without limit, and is tuned as far as its manual goes. nginx has one worker, because it has one
CPU. Apache has room for 256 connections, started ahead.

Modus' prefork runs 8 workers, its default, though one would do for one CPU: that is what a user gets,
and a worker that sleeps or computes holds nobody but itself. `prefork-1` shows what the eight cost."""

import http.client
import os
import pwd
import resource
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import proc
from loads import HELLO, NAP_MS, SLEEP_MS, Load
from network import free_port

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 5
APACHE_MODULES = Path("/usr/lib/apache2/modules")


class StartError(Exception):
    """The server did not come up, or does not answer what it should."""


class NotInThisBuild(Exception):
    """Modus knows the words, and says that this build has not got the thing."""


@dataclass
class Site:
    """What all servers serve, and where they find it."""

    root: Path
    build: Path
    iterations: dict[str, int]  # of /spin and /spins; calibrated when a modus first runs

    @property
    def docroot(self) -> Path:
        return self.root / "www"

    @property
    def certificate(self) -> Path:
        return self.root / "cert.pem"

    @property
    def key(self) -> Path:
        return self.root / "key.pem"

    def create(self) -> None:
        self.root.chmod(0o755)  # unprivileged workers read the files
        self.docroot.mkdir()
        (self.docroot / "hello.txt").write_bytes(HELLO)
        line = bytes(range(ord("!"), ord("!") + 63)) + b"\n"
        (self.docroot / "1k.txt").write_bytes(line * 16)
        (self.docroot / "1m.txt").write_bytes(line * 16384)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost,IP:127.0.0.1", "-out", self.certificate,
             "-keyout", self.key],
            check=True, stderr=subprocess.DEVNULL)


@dataclass(frozen=True)
class Place:
    """One start of one server: its folder, its port, and what it is to serve."""

    site: Site
    load: Load
    folder: Path
    port: int

    @property
    def config(self) -> Path:
        return self.folder / "server.conf"


class Server:
    def __init__(self, name: str, about: str) -> None:
        self.name = name
        self.about = about

    # Its children are reaped by the kernel, and their CPU time appears nowhere but on the CPU itself.
    loses_children = False

    def missing(self, site: Site) -> str | None:
        """Why it cannot run here; None when it can."""
        raise NotImplementedError

    def prepare(self, place: Place) -> list[str]:
        """Write the configuration; return the command."""
        raise NotImplementedError

    def path(self, load: Load) -> str:
        return "/hello.txt" if load.content == "hello" else f"/{load.content}"

    def is_ready(self, log: str) -> bool:
        """Is its own word for it in the log? Whether it answers is asked afterwards."""
        return True


class Modus(Server):
    def __init__(self, name: str, model: str, **sizes: int) -> None:
        words = ", ".join(f"{key} {value}" for key, value in sizes.items())
        super().__init__(name, f"modus, {model}, {words}")
        self.model = model
        self.sizes = sizes

    def missing(self, site: Site) -> str | None:
        return None if (site.build / "modus").exists() else f"{site.build}/modus is not built"

    def path(self, load: Load) -> str:
        return f"/{load.content}"

    def is_ready(self, log: str) -> bool:
        return "modus: ready" in log

    def config_text(self, place: Place) -> str:
        sizes = self.sizes | place.load.sizes.get(self.model, {})
        lines = "\n".join(f"    {key} = {value}" for key, value in sizes.items())
        tls = f'    tls {{ certificate = "{place.site.certificate}"  key = "{place.site.key}" }}\n'
        spins = place.site.iterations
        return f"""\
drain_timeout = 1s
listen "127.0.0.1:{place.port}" {{
    model = {self.model}
{lines}
    keepalive_timeout = 300s
    access_log = ""
{tls if place.load.tls else ""}
    route "/"      {{ static {{ root = "{place.site.docroot}" }} }}
    route "/hello" {{ text   {{ body = "{HELLO.decode()}" }} }}
    route "/sleep" {{ sleep  {{ duration = {SLEEP_MS}ms }} }}
    route "/nap"   {{ sleep  {{ duration = {NAP_MS}ms }} }}
    route "/spin"  {{ spin   {{ iterations = {spins["spin"]} }} }}
    route "/spins" {{ spin   {{ iterations = {spins["spins"]} }} }}
}}
"""

    def prepare(self, place: Place) -> list[str]:
        place.config.write_text(self.config_text(place))
        modus = str(place.site.build / "modus")
        check = subprocess.run([modus, "-t", "-c", place.config], capture_output=True, text=True)
        if check.returncode != 0:
            words = (check.stderr or check.stdout).strip() or f"-t ended with {check.returncode}"
            raise (NotInThisBuild if "not in this build" in words else StartError)(words)
        return [modus, "-c", str(place.config)]


def unprivileged_user() -> str | None:
    """Whom a server started by root is to become; None: we are not root, and nobody changes."""
    if os.getuid() != 0:
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return "www-data" if "www-data" in names else "nobody"


class Nginx(Server):
    def __init__(self, name: str, about: str, cached: bool = True, text: bool = False) -> None:
        super().__init__(name, about)
        self.cached = cached
        self.text = text

    def missing(self, site: Site) -> str | None:
        return None if program("nginx") else "nginx is not installed"

    def path(self, load: Load) -> str:
        return "/hello" if self.text else super().path(load)

    def prepare(self, place: Place) -> list[str]:
        user = unprivileged_user()
        temporary = "\n".join(f"    {kind}_temp_path {place.folder}/{kind};"
                              for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        cache = "open_file_cache max=1000 inactive=300s; open_file_cache_valid 60s;"
        tls = (f"ssl_certificate {place.site.certificate}; ssl_certificate_key {place.site.key};\n"
               "        ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;")
        place.config.write_text(f"""\
daemon off;
worker_processes 1;
worker_rlimit_nofile {file_limit()};
pid {place.folder}/nginx.pid;
error_log {place.folder}/error.log crit;
{f"user {user};" if user else ""}
events {{ worker_connections 16384; }}
http {{
    access_log off;
    default_type text/plain;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    {cache if self.cached else "open_file_cache off;"}
{temporary}
    server {{
        listen 127.0.0.1:{place.port}{" ssl" if place.load.tls else ""};
        {tls if place.load.tls else ""}
        root {place.site.docroot};
        location = /hello {{ return 200 "{HELLO.decode()}"; }}
    }}
}}
""")
        log = f"{place.folder}/error.log"
        return [program("nginx"), "-p", str(place.folder), "-e", log, "-c", str(place.config)]


class Apache(Server):
    def __init__(self, mpm: str, sizes: str) -> None:
        super().__init__(f"apache-{mpm}", f"Apache httpd, {mpm}: {sizes}")
        self.mpm = mpm
        self.sizes = sizes

    def missing(self, site: Site) -> str | None:
        if not program("apache2"):
            return "apache2 is not installed"
        module = APACHE_MODULES / f"mod_mpm_{self.mpm}.so"
        return None if module.exists() else f"{module} is not installed"

    def prepare(self, place: Place) -> list[str]:
        user = unprivileged_user()
        modules = [f"mpm_{self.mpm}", "authz_core"] + (["ssl"] if place.load.tls else [])
        load_modules = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so"
                                 for name in modules)
        tls = (f"SSLEngine on\nSSLCertificateFile {place.site.certificate}\n"
               f"SSLCertificateKeyFile {place.site.key}\nSSLSessionCache none")
        group = pwd.getpwnam(user).pw_gid if user else 0
        place.config.write_text(f"""\
ServerRoot {place.folder}
DefaultRuntimeDir {place.folder}
PidFile {place.folder}/apache.pid
ErrorLog {place.folder}/error.log
LogLevel error
ServerName localhost
Listen 127.0.0.1:{place.port}
{f"User {user}" if user else ""}
{f"Group #{group}" if user else ""}
{load_modules}
{self.sizes.replace(", ", chr(10))}
KeepAlive On
KeepAliveTimeout 300
MaxKeepAliveRequests 0
EnableSendfile On
HostnameLookups Off
DocumentRoot {place.site.docroot}
<Directory />
    Options FollowSymLinks
    AllowOverride None
    Require all granted
    ForceType text/plain
</Directory>
{tls if place.load.tls else ""}
""")
        return [program("apache2"), "-DFOREGROUND", "-f", str(place.config)]


class Limit(Server):
    def __init__(self, name: str, about: str, loses_children: bool = False) -> None:
        super().__init__(name, about)
        self.loses_children = loses_children
        self.program = name.replace("-", "_")

    def missing(self, site: Site) -> str | None:
        path = site.build / "tests/bench" / self.program
        return None if path.exists() else f"{path} is not built"

    def is_ready(self, log: str) -> bool:
        return "listening" in log

    def prepare(self, place: Place) -> list[str]:
        command = [str(place.site.build / "tests/bench" / self.program), str(place.port)]
        if self.program == "limit_sendfile":
            command.append(str(place.site.docroot / place.load.content))
        elif self.program == "limit_epoll" and place.load.close:
            command.append("close")
        place.config.write_text(" ".join(command) + "\n")
        return command


SERVERS: dict[str, Server] = {server.name: server for server in [
    Modus("event-loop", "event-loop", loops=1, threads=256, max_connections=12000),
    Modus("prefork", "prefork", processes=8, max_connections=12000),
    Modus("prefork-1", "prefork", processes=1, max_connections=12000),
    Modus("thread-pool", "thread-pool", threads=64, max_connections=12000),
    Modus("process", "process", max_connections=512),
    Modus("hybrid", "hybrid", processes=2, threads=32, max_connections=12000),
    Modus("coroutine", "coroutine", loops=1, threads=64, max_connections=12000),
    Nginx("nginx", "nginx, one worker, sendfile, tcp_nopush, open_file_cache"),
    Nginx("nginx-uncached", "the same without open_file_cache", cached=False),
    Nginx("nginx-return", "nginx, answering from its configuration (`return 200`)", text=True),
    Apache("event", "ServerLimit 2, StartServers 2, ThreadLimit 128, ThreadsPerChild 128, "
           "MaxRequestWorkers 256, MinSpareThreads 64, MaxSpareThreads 256, "
           "AsyncRequestWorkerFactor 50"),
    Apache("worker", "ServerLimit 2, StartServers 2, ThreadLimit 128, ThreadsPerChild 128, "
           "MaxRequestWorkers 256, MinSpareThreads 64, MaxSpareThreads 256"),
    Apache("prefork", "ServerLimit 256, StartServers 128, MinSpareServers 8, MaxSpareServers 256, "
           "MaxRequestWorkers 256"),
    Limit("limit-epoll", "bare epoll loop, recv and send of a constant"),
    Limit("limit-fork", "bare accept and fork loop, linked with modus' libraries", loses_children=True),
    Limit("limit-sendfile", "bare epoll loop, send(MSG_MORE) and sendfile"),
]}


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(f"/usr/sbin/{name}")


def file_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def enter_cpus(cpus: frozenset[int]) -> None:
    os.sched_setaffinity(0, cpus)
    proc.end_with_parent()


class Running:
    """A started server, checked to answer; a context manager that stops it."""

    def __init__(self, server: Server, site: Site, load: Load, cpus: frozenset[int]) -> None:
        self.server = server
        self.load = load
        folder = Path(tempfile.mkdtemp(prefix=f"{load.name}-{server.name}-", dir=site.root))
        folder.chmod(0o755)
        self.place = Place(site, load, folder, free_port())
        command = server.prepare(self.place)
        self.log_path = folder / "output.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=partial(enter_cpus, cpus))
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        scheme = "https" if self.load.tls else "http"
        return f"{scheme}://127.0.0.1:{self.place.port}{self.server.path(self.load)}"

    def log(self) -> str:
        error_log = self.place.folder / "error.log"
        extra = error_log.read_text(errors="replace") if error_log.exists() else ""
        return self.log_path.read_text(errors="replace") + extra

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.server.is_ready(self.log()) and self.answers()):
            if self.process.poll() is not None:
                raise StartError(f"ended with {self.process.returncode}: {self.log()[-500:].strip()}")
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {START_TIMEOUT_S} s: {self.log()[-500:].strip()}")
            time.sleep(0.02)

    def answers(self) -> bool:
        """False: it does not listen yet. Raises StartError when the answer is not the right one."""
        try:
            status, body = self.get()
        except ConnectionRefusedError:
            return False
        except (OSError, http.client.HTTPException) as error:
            raise StartError(f"GET {self.url}: {error!r}: {self.log()[-300:].strip()}") from error
        wanted = self.wanted()
        if status != 200 or wanted not in (None, body):
            raise StartError(f"GET {self.url}: status {status}, {len(body)} bytes: {body[:80]!r}")
        return True

    def get(self) -> tuple[int, bytes]:
        connect: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
        if self.load.tls:
            connect = partial(http.client.HTTPSConnection, context=ssl._create_unverified_context())
        connection = connect("127.0.0.1", self.place.port, timeout=START_TIMEOUT_S)
        try:
            connection.request("GET", self.server.path(self.load))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def wanted(self) -> bytes | None:
        if self.load.content == "hello":
            return HELLO
        file = self.place.site.docroot / self.load.content
        return file.read_bytes() if file.exists() else None

    def stop(self) -> None:
        """Ask the first process to end; whoever of the tree outlives it is ended by pid."""
        members = proc.tree(self.pid) if self.process.poll() is None else []
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        proc.kill_survivors(members)
