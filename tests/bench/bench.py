#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""make bench: Modus beside nginx, Apache httpd and the bare limit programs.

The server has one CPU, wrk another. All servers of a load run side by side, idle unless it is their
turn, and the turns are interleaved, there and back, so that a change of the machine's mood meets
everybody. The figure to compare is the server's CPU time a request: wrk is slower than a good server,
so requests a second say more about wrk.

Speed is no test: the exit status is 0 whether or not the ratios hold, 1 when something failed to run,
2 when the command is wrong."""

import argparse
import dataclasses
import json
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import loads
import report
from loads import ALL_LOADS, IDLE, LOADS, ONCE, SPINS, Load
from measure import (Burst, Cpus, Idle, Round, RoundFailed, burst, measure_idle, measure_round,
                     one_after_the_other, warm_up)
from network import enter_private_loopback
from servers import SERVERS, NotInThisBuild, Running, Site, StartError, program

REPOSITORY = Path(__file__).resolve().parents[2]
CALIBRATION_ITERATIONS = 100_000_000


def say(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)


@dataclass
class Results:
    machine: dict[str, str]
    rounds: list[Round] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)
    once: dict[str, Burst] = field(default_factory=dict)
    spins: dict[str, tuple[Burst, Burst]] = field(default_factory=dict)
    configs: dict[str, dict[str, str]] = field(default_factory=dict)  # of a load, of a server
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class Bench:
    def __init__(self, options: argparse.Namespace, site: Site, cpus: Cpus, results: Results) -> None:
        self.options = options
        self.site = site
        self.cpus = cpus
        self.results = results
        self.calibrated = False

    def wanted(self, load: Load) -> list[str]:
        """The servers to measure with this load; says once of each missing one that it is."""
        names = [name for name in load.servers if name in self.options.servers]
        for name in names:
            reason = SERVERS[name].missing(self.site)
            if reason is not None:
                self.skip(name, reason)
        return [name for name in names if name not in self.results.skipped]

    def skip(self, name: str, reason: str) -> None:
        if name not in self.results.skipped:
            say(f"skipped: {name}: {reason}")
            self.results.skipped[name] = reason

    def fail(self, words: str) -> None:
        say(f"FAILED: {words}")
        self.results.failed.append(words)

    def start(self, name: str, load: Load, stack: ExitStack, pinned: bool = True) -> Running | None:
        cpus = frozenset([self.cpus.server]) if pinned else self.cpus.all
        try:
            running = stack.enter_context(Running(SERVERS[name], self.site, load, cpus))
        except NotInThisBuild as reason:
            self.skip(name, str(reason))
            return None
        except (StartError, OSError) as error:
            self.fail(f"{load.name}, {name}: {error}")
            return None
        self.results.configs.setdefault(load.name, {})[name] = running.place.config.read_text()
        return running

    @contextmanager
    def each(self, name: str, load: Load, pinned: bool = True) -> Iterator[Running | None]:
        """One server alone, and what goes wrong inside is a failure of it, not of the run."""
        with ExitStack() as stack:
            try:
                yield self.start(name, load, stack, pinned)
            except (RoundFailed, OSError) as error:
                self.fail(f"{load.name}, {name}: {error}")

    def run(self) -> None:
        for load in LOADS:
            if load.name in self.options.loads:
                self.run_rounds(load)
        for load, run_one in ((IDLE, self.run_idle), (ONCE, self.run_once), (SPINS, self.run_spins)):
            if load.name in self.options.loads:
                for name in self.wanted(load):
                    say(f"{load.name}: {name}")
                    run_one(name)

    def run_rounds(self, load: Load) -> None:
        names = self.wanted(load)
        if load.content == "spin" and names:
            self.calibrate()
        with ExitStack() as stack:
            started = [self.start(name, load, stack) for name in names]
            turns = [running for running in started if running is not None]
            say(f"{load.name}: {load.title}: {len(turns)} servers")
            for running in list(turns):
                if not self.attempt(running, lambda r: warm_up(r, load)):
                    turns.remove(running)
            for repeat in range(self.options.repeat):
                for running in turns if repeat % 2 == 0 else reversed(turns):
                    self.attempt(running, lambda r: self.one_round(r, repeat))

    def attempt(self, running: Running, action: Callable[[Running], None]) -> bool:
        try:
            action(running)
            return True
        except RoundFailed as error:
            self.fail(f"{running.load.name}, {running.server.name}: {error}")
            return False

    def one_round(self, running: Running, repeat: int) -> None:
        r = measure_round(running, repeat, self.options.seconds, self.cpus)
        self.results.rounds.append(r)
        noise = "" if r.trusted else f", not to be trusted: others {r.others:.0%}, stolen {r.stolen:.0%}"
        say(f"{r.load} {repeat + 1}/{self.options.repeat} {r.server}: {r.requests_per_s:,.0f}/s, "
            f"{r.cpu_us:.2f} µs{noise}")

    def run_idle(self, name: str) -> None:
        with self.each(name, IDLE) as running:
            if running is not None:
                warm_up(running, dataclasses.replace(IDLE, connections=64))
                self.results.idle.append(measure_idle(running))

    def run_once(self, name: str) -> None:
        with self.each(name, ONCE) as running:
            if running is not None:
                self.results.once[name] = burst(running, ONCE.connections)

    def run_spins(self, name: str) -> None:
        self.calibrate()
        with self.each(name, SPINS, pinned=False) as running:
            if running is not None:
                serial = one_after_the_other(running, SPINS.connections)
                self.results.spins[name] = (serial, burst(running, SPINS.connections))

    def calibrate(self) -> None:
        """How many iterations of the spin handler are how long? Asked once."""
        if self.calibrated:
            return
        self.calibrated = True
        spin = next(load for load in LOADS if load.name == "spin")
        with self.each("event-loop", spin) as running:
            if running is not None:
                seconds = min(burst(running, 1).seconds for _ in range(5))
                per_second = CALIBRATION_ITERATIONS / seconds
                self.site.iterations["spin"] = int(per_second * loads.SPIN_S)
                self.site.iterations["spins"] = int(per_second * loads.SPINS_S)


# --- the command --------------------------------------------------------------------------------


def names_of(known: list[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name}: one of {', '.join(known)}")
        return names
    return parse


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def parse_options() -> argparse.Namespace:
    load_names, server_names = [load.name for load in ALL_LOADS], list(SERVERS)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="loads: " + ", ".join(load_names) + "\nservers: " + ", ".join(server_names))
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build/release", metavar="FOLDER",
                        help="where modus and tests/bench/limit_* are (build/release)")
    parser.add_argument("--seconds", type=at_least_one, default=2, help="of a round (2)")
    parser.add_argument("--repeat", type=at_least_one, default=5, help="rounds of each server (5)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 1 second")
    parser.add_argument("--loads", type=names_of(load_names), default=load_names, metavar="A,B")
    parser.add_argument("--servers", type=names_of(server_names), default=server_names, metavar="A,B")
    parser.add_argument("--json", type=argparse.FileType("w"), metavar="FILE", help="everything measured")
    parser.add_argument("--markdown", type=argparse.FileType("w"), metavar="FILE", help="the tables")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.repeat = 1, 3
    return options


def choose_cpus() -> Cpus:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        sys.exit("bench: two CPUs are needed, one for the server and one for wrk")
    return Cpus(server=allowed[0], loader=allowed[1], all=frozenset(allowed))


def first_line(command: list[str], pattern: str) -> str:
    """The part of a program's version output that `pattern` finds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return "not here"
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(0) if found else "unknown"


def describe_machine(build: Path, cpus: Cpus, network: str) -> dict[str, str]:
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{model.group(1) if model else platform.machine()}, {len(cpus.all)} CPUs",
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "network": network,
        "modus": first_line([str(build / "modus"), "--version"], r".+"),
        "nginx": first_line([program("nginx") or "nginx", "-v"], r"nginx/\S+"),
        "Apache": first_line([program("apache2") or "apache2", "-v"], r"Apache/\S+"),
        "OpenSSL": first_line(["openssl", "version"], r"OpenSSL \S+"),
        "wrk": first_line(["wrk", "-v"], r"wrk \S+"),
    }


def raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def text_of(results: Results, options: argparse.Namespace, ratios: list[report.Ratio]) -> str:
    parts = ["\n".join(f"- {key}: {value}" for key, value in results.machine.items())]
    parts.append(f"Medians of {options.repeat} interleaved rounds of {options.seconds} s, ± half the range; "
                 "CPU time is the server's whole tree. Rounds in which others used more than 15 % of a "
                 "CPU are not trusted, and left out where there are better ones.")
    used = dict.fromkeys(r.server for r in results.rounds)
    parts.append("\n".join(f"- {name}: {SERVERS[name].about}" for name in used))
    parts += report.load_tables(results.rounds)
    if results.idle:
        parts += report.idle_table(results.idle)
    if results.once:
        parts += report.once_table(results.once)
    if results.spins:
        parts += report.spins_table(results.spins)
    parts += report.summary(results.rounds)
    if ratios:
        parts += report.ratio_table(ratios)
    parts.append("\n".join([f"- skipped: {name}: {reason}" for name, reason in results.skipped.items()] +
                           [f"- FAILED: {words}" for words in results.failed]))
    return "\n\n".join(part for part in parts if part) + "\n"


def json_of(results: Results, ratios: list[report.Ratio]) -> str:
    everything = dataclasses.asdict(results)
    everything["rounds"] = [dataclasses.asdict(r) | {"trusted": r.trusted} for r in results.rounds]
    everything["ratios"] = [dataclasses.asdict(r) | {"word": r.word} for r in ratios]
    return json.dumps(everything, indent=1, ensure_ascii=False) + "\n"


def estimate(options: argparse.Namespace) -> float:
    """Minutes, were everything installed."""
    starts = [name for load in LOADS if load.name in options.loads
              for name in load.servers if name in options.servers]
    return len(starts) * (1.5 + options.repeat * (options.seconds + 0.15)) / 60 + 1.5


def main() -> int:
    options = parse_options()
    if program("wrk") is None:
        sys.exit("bench: wrk is not installed")
    cpus = choose_cpus()
    network = enter_private_loopback()
    raise_file_limit()
    os.sched_setaffinity(0, {cpus.loader})
    results = Results(describe_machine(options.build, cpus, network))
    say(f"at most about {estimate(options):.0f} minutes, on {network}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="modus-bench-") as folder:
        iterations = {"spin": CALIBRATION_ITERATIONS, "spins": CALIBRATION_ITERATIONS}
        site = Site(Path(folder), options.build.resolve(), iterations)
        site.create()
        Bench(options, site, cpus, results).run()
    ratios = [report.ratio(target, results.rounds) for target in report.TARGETS
              if target.load in options.loads]
    text = text_of(results, options, ratios)
    print(text, end="")
    if options.markdown:
        options.markdown.write(text)
    if options.json:
        options.json.write(json_of(results, ratios))
    say(f"{time.monotonic() - began:.0f} seconds, {len(results.failed)} failures")
    return 1 if results.failed else 0


def stop_on_signal(*_: object) -> None:
    """Once: what is under way then is the cleaning up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_on_signal)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
