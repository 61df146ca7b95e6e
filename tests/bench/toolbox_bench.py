#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""make bench-toolbox: the locks, queues, events and coroutines of Modus beside those of glibc, GLib, APR,
Concurrency Kit, libuv and CPython.

A row is one piece of work, done by each peer with the same loop (toolbox/loops.h). A round is one run of
one peer's program. The rounds of a row are interleaved, there and back, so that a change of the machine's
mood meets everybody. Beside the time an operation there is the CPU time, of all workers: who spins is fast
as long as the CPU has nothing else to do.

Speed is no test: the exit status is 0 whether or not the ratios hold, 1 when something failed to run,
2 when the command is wrong."""

import argparse
import dataclasses
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import proc
import toolbox_report as report
from bench import at_least_one, names_of, say, stop_on_signal
from measure import own_cpu_s
from toolbox_report import Round
from toolbox_rows import PEERS, ROWS, TARGETS, Job, Row

REPOSITORY = Path(__file__).resolve().parents[2]
PEERS_FOLDER = Path(__file__).resolve().parent / "toolbox"
EXIT_NOT_HERE = 3  # harness.h
CALIBRATE_TURNS = 100_000  # peer_modus.c
ROUND_TIMEOUT_S = 70  # a peer gives up after 60


@dataclass
class Results:
    machine: dict[str, str]
    rounds: list[Round] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


class NotHere(Exception):
    """The peer's program is not built, or has no such job."""


class RoundFailed(Exception):
    pass


class Bench:
    def __init__(self, options: argparse.Namespace, results: Results) -> None:
        self.options = options
        self.results = results
        self.cpus = sorted(os.sched_getaffinity(0))
        self.turns_per_ns = 0.0

    def command(self, job: Job) -> list[str]:
        if job.peer == "python":
            return ["/usr/bin/python3", "-B", str(PEERS_FOLDER / "peer_python.py")]
        program = self.options.build / "tests/bench/toolbox" / f"peer_{job.peer}"
        if not program.exists():
            raise NotHere(f"{program.name} is not built: its library is not installed")
        return [str(program)]

    def call(self, load: str, job: Job, arguments: dict[str, int]) -> dict[str, float]:
        """One run of a peer's program: the line that it printed."""
        words = [load, job.what, f"scope={job.scope}", *(f"{key}={value}" for key, value in arguments.items())]
        peer = subprocess.Popen(self.command(job) + words, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True, preexec_fn=proc.end_with_parent)
        try:
            output, errors = peer.communicate(timeout=ROUND_TIMEOUT_S)
        except BaseException:
            proc.kill_survivors([p for p in proc.everyone() if p.session == peer.pid])
            peer.wait()
            raise
        if peer.returncode == EXIT_NOT_HERE:
            raise NotHere(f"has no {load} {job.what}")
        if peer.returncode != 0:
            proc.kill_survivors([p for p in proc.everyone() if p.session == peer.pid])
            raise RoundFailed(f"ended with {peer.returncode}: {errors.strip()[-300:]}")
        return json.loads(output)

    def measure(self, row: Row, name: str, repeat: int) -> Round:
        arguments = {"ms": self.options.milliseconds, **row.arguments}
        if row.work_ns:
            arguments["work"] = self.turns(row.work_ns)
        before = {cpu: proc.sample_cpu(cpu) for cpu in self.cpus}
        own_before = own_cpu_s()
        result = self.call(row.load, row.jobs[name], arguments)
        own_s = own_cpu_s() - own_before
        after = {cpu: proc.sample_cpu(cpu) for cpu in self.cpus}
        wall_s = after[self.cpus[0]].at - before[self.cpus[0]].at
        busy_s = sum(proc.busy_s(before[cpu], after[cpu]) for cpu in self.cpus)
        stolen_s = sum(after[cpu].steal - before[cpu].steal for cpu in self.cpus)
        return Round(row=row.name, job=name, repeat=repeat, others=max(0.0, busy_s - own_s) / wall_s,
                     stolen=stolen_s / wall_s, **result)  # type: ignore[arg-type]

    def turns(self, ns: int) -> int:
        """How many turns of a loop take that long? Asked once."""
        if not self.turns_per_ns:
            tries = [self.call("calibrate", Job("modus", "work", "thread"), {"ms": 50}) for _ in range(5)]
            self.turns_per_ns = max(CALIBRATE_TURNS * t["ops"] / t["seconds"] / 1e9 for t in tries)
        return max(1, int(ns * self.turns_per_ns))

    def run(self) -> None:
        for name in self.options.rows:
            self.run_row(ROWS[name])

    def run_row(self, row: Row) -> None:
        turns = [name for name, job in row.jobs.items() if job.peer in self.options.peers]
        if not turns:
            return
        say(f"{row.name}: {row.title}")
        for repeat in range(1 if row.once else self.options.repeat):
            for name in list(turns) if repeat % 2 == 0 else list(reversed(turns)):
                try:
                    self.results.rounds.append(self.measure(row, name, repeat))
                except NotHere as reason:
                    self.skip(row.jobs[name].peer, str(reason))
                    turns.remove(name)
                except (RoundFailed, subprocess.TimeoutExpired, OSError, ValueError) as error:
                    self.fail(f"{row.name}, {name}: {error}")
                    turns.remove(name)

    def skip(self, peer: str, reason: str) -> None:
        if peer not in self.results.skipped:
            say(f"skipped: {peer}: {reason}")
            self.results.skipped[peer] = reason

    def fail(self, words: str) -> None:
        say(f"FAILED: {words}")
        self.results.failed.append(words)


# --- the command --------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows: " + ", ".join(ROWS) + "\npeers: " + ", ".join(PEERS))
    parser.add_argument("--build", type=Path, default=REPOSITORY / "build/release", metavar="FOLDER",
                        help="where tests/bench/toolbox/peer_* are (build/release)")
    parser.add_argument("--milliseconds", type=at_least_one, default=200, help="of a round (200)")
    parser.add_argument("--repeat", type=at_least_one, default=5, help="rounds of each peer (5)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 100 ms, and fewer rows")
    parser.add_argument("--rows", type=names_of(list(ROWS)), metavar="A,B")
    parser.add_argument("--peers", type=names_of(PEERS), default=PEERS, metavar="A,B")
    parser.add_argument("--json", type=argparse.FileType("w"), metavar="FILE", help="everything measured")
    parser.add_argument("--markdown", type=argparse.FileType("w"), metavar="FILE", help="the tables")
    options = parser.parse_args()
    if options.rows is None:
        options.rows = [row.name for row in ROWS.values() if row.brief or not options.quick]
    if options.quick:
        options.milliseconds, options.repeat = 100, 3
    return options


def version_of(package: str) -> str:
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 and done.stdout else "not here"


def describe_machine() -> dict[str, str]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = {"glibc": "libc6", "GLib": "libglib2.0-dev", "APR": "libapr1-dev", "APR-util": "libaprutil1-dev",
                "ck": "libck-dev", "libuv": "libuv1-dev", "Python": "python3"}
    return {
        "processor": f"{model.group(1) if model else platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        **{name: version_of(package) for name, package in versions.items()},
    }


def text_of(results: Results, options: argparse.Namespace, ratios: list[report.Ratio]) -> str:
    parts = ["\n".join(f"- {key}: {value}" for key, value in results.machine.items())]
    parts.append(f"Medians of {options.repeat} interleaved rounds of {options.milliseconds} ms, ± half the "
                 "range; CPU time is that of all workers. Rounds in which others used more than 15 % of a CPU "
                 "are not trusted, and left out where there are better ones.")
    parts += report.row_tables(results.rounds)
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
    def seconds(row: Row, job: Job) -> float:
        return options.milliseconds / 1000 + (0.15 if job.peer == "python" else 0.02)

    return sum((1 if row.once else options.repeat) * seconds(row, job)
               for row in ROWS.values() if row.name in options.rows
               for job in row.jobs.values() if job.peer in options.peers) / 60


def main() -> int:
    options = parse_options()
    results = Results(describe_machine())
    say(f"about {estimate(options):.1f} minutes")
    began = time.monotonic()
    Bench(options, results).run()
    ratios = [report.ratio(target, results.rounds) for target in TARGETS if target.row in options.rows]
    text = text_of(results, options, ratios)
    print(text, end="")
    if options.markdown:
        options.markdown.write(text)
    if options.json:
        options.json.write(json_of(results, ratios))
    say(f"{time.monotonic() - began:.0f} seconds, {len(results.failed)} failures")
    return 1 if results.failed else 0


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_on_signal)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
