#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""CPython's threading, queue, multiprocessing, concurrent.futures and asyncio: the same jobs and the
same line of JSON as the peers in C (harness.h), as far as Python has the thing.

What is timed is the loop, not the interpreter's start. Processes are forked, which is the cheapest way
that Python has."""

import asyncio
import ctypes
import json
import multiprocessing
import multiprocessing.pool
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

EXIT_NOT_HERE = 3
GIVE_UP_S = 60
BATCH = 64
TASKS_AHEAD = 1000
POOL_WORKERS = 2
END_OF_ITEMS = -1
MP = multiprocessing.get_context("fork")


class Run:
    """What the command line asks for, and what the workers share."""

    def __init__(self, words: list[str]) -> None:
        asked = dict(word.split("=") for word in words)
        self.processes = asked.get("scope") == "process"
        self.producers, self.consumers = int(asked.get("producers", 0)), int(asked.get("consumers", 0))
        self.workers = self.producers + self.consumers or int(asked.get("workers", 1))
        self.seconds = int(asked.get("ms", 100)) / 1000
        self.capacity, self.item = int(asked.get("capacity", 0)), int(asked.get("item", 8))
        self.count = int(asked.get("count", 0))
        self.work = int(asked.get("work", 0))
        self.stop, self.over = MP.RawValue(ctypes.c_int, 0), MP.RawValue(ctypes.c_int, 0)
        self.ready, self.go = MP.Semaphore(0), MP.Semaphore(0)
        self.results: Any = MP.SimpleQueue()

    @property
    def library(self) -> Any:
        """threading and multiprocessing call the same things by the same names."""
        return MP if self.processes else threading


class Worker:
    def __init__(self, run: Run, index: int) -> None:
        self.run, self.index = run, index
        self.ops = self.put_sum = self.got_sum = 0
        self.waits: list[int] = []

    def cost(self) -> tuple[float, int, int]:
        """CPU time, sleeps, preemptions. A worker who is alone also answers for what it starts."""
        whom = [resource.RUSAGE_THREAD]
        if self.run.workers == 1:
            whom = [resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN]
        used = [resource.getrusage(who) for who in whom]
        return (sum(u.ru_utime + u.ru_stime for u in used), sum(u.ru_nvcsw for u in used),
                sum(u.ru_nivcsw for u in used))

    def begin(self) -> None:
        self.run.ready.release()
        self.run.go.acquire()
        self.before = self.cost()
        self.began = time.monotonic_ns()

    def end(self, last: Callable[[], object] | None = None) -> None:
        """last has no part in the time, but in the cost."""
        ended = time.monotonic_ns()
        if last:
            last()
        cpu_s, switches, preemptions = (now - then for now, then in zip(self.cost(), self.before))
        self.run.results.put({
            "ops": self.ops, "began": self.began, "ended": ended, "put": self.put_sum, "got": self.got_sum,
            "cpu_s": cpu_s, "switches": switches, "preemptions": preemptions, "waits": self.waits[:20000]})

    def until_stopped(self, operation: Callable[[], object], batch: int = BATCH, timed: bool = False,
                      last: Callable[[], object] | None = None) -> None:
        """Operation after operation; a batch between two looks at the clock's flag."""
        stop, n = self.run.stop, 0
        self.begin()
        while not stop.value:
            since = time.monotonic_ns() if timed else 0
            for _ in range(batch):
                operation()
            n += batch
            if timed:
                self.waits.append(time.monotonic_ns() - since)
        self.ops = n
        self.end(last)


def workers(run: Run, work: Callable[[Worker], None]) -> list[dict[str, Any]]:
    kind = MP.Process if run.processes else threading.Thread
    all_of_them: list[Any] = [kind(target=work, args=(Worker(run, i),), daemon=True)
                              for i in range(run.workers)]
    for worker in all_of_them:
        worker.start()
    for _ in all_of_them:
        run.ready.acquire()
    for _ in all_of_them:
        run.go.release()
    time.sleep(run.seconds)
    run.stop.value = 1
    results = [run.results.get() for _ in all_of_them]
    for worker in all_of_them:
        worker.join()
    return results


# --- the loops ----------------------------------------------------------------------------------


def lock_job(make: Callable[[Run], Any]) -> Callable[[Run], list[dict[str, Any]]]:
    def job(run: Run) -> list[dict[str, Any]]:
        lock = make(run)
        acquire, release = lock.acquire, lock.release

        def once() -> None:
            acquire()
            release()
        return workers(run, lambda worker: worker.until_stopped(once, 1 if run.workers > 1 else BATCH))
    return job


Ends = tuple[Callable[[], object], Callable[[], object]]  # send, receive


def relay_job(make: Callable[[Run], Ends]) -> Callable[[Run], list[dict[str, Any]]]:
    def job(run: Run) -> list[dict[str, Any]]:
        (send, receive), (send_back, receive_back) = make(run), make(run)

        def round_trip() -> None:
            send()
            receive_back()

        def work(worker: Worker) -> None:
            if worker.index == 0:
                worker.until_stopped(round_trip, 1, timed=True)
                run.over.value = 1
                send()
                return
            worker.begin()
            receive()
            while not run.over.value:
                send_back()
                receive()
            worker.end()
        return workers(run, work)
    return job


def event_ends(run: Run) -> Ends:
    event = run.library.Event()

    def receive() -> None:
        event.wait()
        event.clear()
    return event.set, receive


def sem_ends(run: Run) -> Ends:
    sem = run.library.Semaphore(0)
    return sem.release, sem.acquire


def cond_ends(run: Run) -> Ends:
    condition, flag = run.library.Condition(), MP.RawValue(ctypes.c_int, 0)

    def send() -> None:
        with condition:
            flag.value = 1
            condition.notify()

    def receive() -> None:
        with condition:
            condition.wait_for(lambda: flag.value)
            flag.value = 0
    return send, receive


def make_queue(run: Run) -> Any:
    return MP.Queue(run.capacity) if run.processes else queue.Queue(run.capacity)


def queue_ends(run: Run) -> Ends:
    items = make_queue(run)
    return lambda: items.put(1), items.get


def queue_job(make: Callable[[Run], Any]) -> Callable[[Run], list[dict[str, Any]]]:
    def job(run: Run) -> list[dict[str, Any]]:
        items, producing = make(run), MP.Value(ctypes.c_int, run.producers)
        filling = bytes(run.item) if run.item > 8 else None

        def produce(worker: Worker) -> None:
            n = 0
            while not run.stop.value:
                n += 1
                worker.put_sum += n
                items.put((n, filling) if filling else n)
            if worker.index > 0:
                if run.processes:  # what was put is on its way still; it must not come after the end
                    items.close()
                    items.join_thread()
                with producing.get_lock():
                    producing.value -= 1
                return
            while producing.value > 1:
                time.sleep(0.001)
            for _ in range(run.consumers):
                items.put((END_OF_ITEMS, filling) if filling else END_OF_ITEMS)

        def consume(worker: Worker) -> None:
            n = total = 0
            while True:
                item = items.get()
                number = item[0] if filling else item
                if number == END_OF_ITEMS:
                    break
                n, total = n + 1, total + number
            worker.ops, worker.got_sum = n, total

        def work(worker: Worker) -> None:
            worker.begin()
            (produce if worker.index < run.producers else consume)(worker)
            worker.end()
        return workers(run, work)
    return job


def queue_alone_job(run: Run) -> list[dict[str, Any]]:
    items = make_queue(run)

    def once() -> None:
        items.put(1)
        items.get()
    return workers(run, lambda worker: worker.until_stopped(once))


def barrier_job(run: Run) -> list[dict[str, Any]]:
    barrier = run.library.Barrier(run.workers)

    def work(worker: Worker) -> None:
        worker.begin()
        meeting = 0
        while run.over.value != meeting or meeting == 0:
            meeting += 1
            if worker.index == 0 and run.stop.value:
                run.over.value = meeting
            barrier.wait()
        worker.ops = meeting if worker.index == 0 else 0
        worker.end()
    return workers(run, work)


def start_job(kind: Callable[..., Any]) -> Callable[[Run], list[dict[str, Any]]]:
    def job(run: Run) -> list[dict[str, Any]]:
        def once() -> None:
            started = kind(target=int)
            started.start()
            started.join()
        return workers(run, lambda worker: worker.until_stopped(once, 1, timed=True))
    return job


Pool = tuple[Callable[[], Any], Callable[[Any], object], Callable[[], object]]  # submit, wait, end


def tasks_job(ahead: int, make: Callable[[Run], Pool]) -> Callable[[Run], list[dict[str, Any]]]:
    def job(run: Run) -> list[dict[str, Any]]:
        submit, wait, end = make(run)

        def work(worker: Worker) -> None:
            def batch() -> None:
                for task in [submit() for _ in range(ahead)]:
                    wait(task)
            worker.until_stopped(batch, 1, timed=True, last=end)
        results = workers(run, work)
        for result in results:
            result["ops"] *= ahead
        return results
    return job


def executor(run: Run) -> Pool:
    pool = ThreadPoolExecutor(POOL_WORKERS)
    return lambda: pool.submit(int), lambda future: future.result(), pool.shutdown


def process_pool(run: Run) -> Pool:
    pool = MP.Pool(POOL_WORKERS)

    def end() -> None:
        pool.close()
        pool.join()
    return lambda: pool.apply_async(int), lambda result: result.get(), end


# --- coroutines: generators and asyncio ------------------------------------------------------------


def generator_job(run: Run) -> list[dict[str, Any]]:
    def endless() -> Any:
        while True:
            yield

    return workers(run, lambda worker: worker.until_stopped(endless().__next__))


def asyncio_job(body: Callable[[Worker], Any]) -> Callable[[Run], list[dict[str, Any]]]:
    return lambda run: workers(run, lambda worker: asyncio.run(body(worker)))


async def asyncio_yields(worker: Worker) -> None:
    async def other() -> None:
        while not worker.run.over.value:
            await asyncio.sleep(0)

    beside, n = asyncio.create_task(other()), 0
    worker.begin()
    while not worker.run.stop.value:
        for _ in range(BATCH):
            await asyncio.sleep(0)
        n += BATCH
    worker.ops, worker.run.over.value = n, 1
    worker.end()
    await beside


async def asyncio_creates(worker: Worker) -> None:
    async def nothing() -> None:
        pass

    n = 0
    worker.begin()
    while not worker.run.stop.value:
        for _ in range(BATCH):
            await asyncio.create_task(nothing())
        n += BATCH
    worker.ops = n
    worker.end()


def rss_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon:"))


async def asyncio_sleepers(worker: Worker) -> None:
    before = rss_bytes()
    worker.begin()
    sleeping = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(worker.run.count)]
    await asyncio.sleep(0.001)
    worker.ops = worker.run.count
    worker.end()
    worker.run.results.put({"bytes_each": (rss_bytes() - before) / worker.run.count})
    for task in sleeping:
        task.cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)


def sleepers_job(run: Run) -> list[dict[str, Any]]:
    results = asyncio_job(asyncio_sleepers)(run)
    results[0] |= run.results.get()
    return results


# --- the command ------------------------------------------------------------------------------------

JOBS: dict[tuple[str, str], Callable[[Run], list[dict[str, Any]]]] = {
    ("lock", "lock"): lock_job(lambda run: run.library.Lock()),
    ("lock", "rlock"): lock_job(lambda run: run.library.RLock()),
    ("lock", "sem"): lock_job(lambda run: run.library.Semaphore(1)),
    ("lock", "queue"): queue_alone_job,
    ("relay", "event"): relay_job(event_ends),
    ("relay", "sem"): relay_job(sem_ends),
    ("relay", "cond"): relay_job(cond_ends),
    ("relay", "queue"): relay_job(queue_ends),
    ("queue", "queue"): queue_job(make_queue),
    ("barrier", "barrier"): barrier_job,
    ("start", "thread"): start_job(threading.Thread),
    ("start", "process"): start_job(MP.Process),
    ("tasks", "pool"): tasks_job(TASKS_AHEAD, executor),
    ("task", "pool"): tasks_job(1, executor),
    ("tasks", "processes"): tasks_job(TASKS_AHEAD, process_pool),
    ("task", "processes"): tasks_job(1, process_pool),
    ("switch", "context"): generator_job,
    ("switch", "yield"): asyncio_job(asyncio_yields),
    ("switch", "create"): asyncio_job(asyncio_creates),
    ("sleepers", "coroutine"): sleepers_job,
}


def percentile(waits: list[int], part: float) -> int:
    return sorted(waits)[min(len(waits) - 1, int(part * len(waits)))] if waits else 0


def line_of(results: list[dict[str, Any]]) -> dict[str, float]:
    def total(name: str) -> float:
        return sum(result[name] for result in results)

    assert total("put") == total("got"), "items were lost, or came twice"
    ops = [result["ops"] for result in results]
    waits = [wait for result in results for wait in result["waits"]]
    return {
        "ops": sum(ops), "cpu_s": total("cpu_s"), "switches": total("switches"),
        "seconds": (max(r["ended"] for r in results) - min(r["began"] for r in results)) / 1e9,
        "preemptions": total("preemptions"), "least": min(ops), "most": max(ops),
        "p50_ns": percentile(waits, 0.5), "p99_ns": percentile(waits, 0.99), "max_ns": percentile(waits, 1),
        "bytes_each": results[0].get("bytes_each", 0), "kernel_bytes_each": 0}


def main() -> int:
    job = JOBS.get((sys.argv[1], sys.argv[2])) if len(sys.argv) > 2 else None
    if job is None:
        return EXIT_NOT_HERE
    signal.alarm(GIVE_UP_S)
    print(json.dumps(line_of(job(Run(sys.argv[3:])))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
