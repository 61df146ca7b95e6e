# SPDX-License-Identifier: MIT
"""Coroutines for gdb: who is there, what each waits for, and its stack.

    (gdb) source /usr/local/share/modus/gdb.py
    (gdb) info coroutines
    (gdb) coroutine 3 bt
    (gdb) coroutine reader info locals
    (gdb) coroutine all bt

Nothing in the program is changed, so this works on a core file too: the kernel's, as one that gdb
has written lacks the stacks (it does not read past their guards). It needs the library's debugging
symbols and, for the stacks, its own switch (context.c, on x86-64).

How: each thread's loop has a list of its coroutines (coroutine_priv.h). One that is suspended has
the registers that a call keeps on its stack, at context.sp. While a command runs on it, an unwinder
says that the innermost frame of its thread was called by the one that left for the loop, and a
filter leaves out that innermost frame.
"""

import itertools
import time

import gdb
import gdb.unwinder

FIRST_ID = 0x400000  # coroutine_id.c
STATES = ("ready", "running", "waiting")  # enum modus_co_state
SAVED = ("r15", "r14", "r13", "r12", "rbx", "rbp", "rip")  # at context.sp: context.c
WORD = 8
WAITS = (  # enum modus_co_wait
    lambda what: "waits for %s" % what,
    lambda what: "waits for the lock at %s" % what,
    lambda what: "waits for %s, shared" % what,
    lambda what: "sleeps",
    lambda what: "waits for descriptor %d" % int(what),
    lambda what: "joins " + name_of(what.cast(gdb.lookup_type("struct modus_co").pointer())),
)


def name_of(co):
    return co["name"].string(errors="replace")


def address_of(symbol):
    """Of a function without debugging symbols of its own; 0: there is none."""
    try:
        return int(gdb.parse_and_eval("(unsigned long)&" + symbol))
    except gdb.error:
        return 0


# --- who is there --------------------------------------------------------------------------------


class Coroutine:
    def __init__(self, co, thread, now, woken):
        self.thread = thread
        self.number, self.name = int(co["id"]) - FIRST_ID + 1, name_of(co)
        self.state = "ready" if woken else STATES[int(co["state"])]
        self.sp = int(co["context"]["sp"])
        begin = address_of("modus_context_begin")
        if self.state != "running" and begin and self.registers().get("rip") == begin:
            self.state, self.sp = "has not begun", 0
        self.doing = self.state
        if self.state == "waiting":
            ms = max(0, now - int(co["since"])) // 1000000
            self.doing = "%s, since %d ms" % (WAITS[int(co["kind"])](co["object"]), ms)
        if int(co["cancelled"]):
            self.doing += ", cancelled"

    def registers(self):
        """Those with which it goes on, by name; none if it has no stack that can be read."""
        if not self.sp or not address_of("modus_context_swap"):
            return {}
        word = gdb.lookup_type("unsigned long").pointer()
        values = gdb.Value(self.sp).cast(word)
        registers = {name: int(values[i]) for i, name in enumerate(SAVED)}
        registers["rsp"] = self.sp + len(SAVED) * WORD
        return registers


def linked(first, link):
    while first:
        yield first
        first = first[link]


def now_of(loop):
    """The program's time: of a core file, and from afar, that of the loop's last turn."""
    connection = getattr(gdb.selected_inferior(), "connection", None)
    if getattr(connection, "type", None) == "native":
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return int(loop["now"])


def coroutines_of(thread):
    """Those of the selected thread."""
    loop = gdb.parse_and_eval("modus_co_here")
    if not loop:
        return []
    ready = linked(loop["first"], "next") if loop["first"] else ()
    ready = itertools.chain(ready, linked(loop["inbox"], "next"))
    woken = {int(co) for co in itertools.islice(ready, int(loop["live"]))}
    everybody = itertools.islice(linked(loop["all"], "after"), int(loop["live"]))
    return [Coroutine(co, thread, now_of(loop), int(co) in woken) for co in everybody]


def all_coroutines():
    """Of all threads, in the order in which they were made."""
    found, trouble = [], None
    if gdb.lookup_global_symbol("modus_co_here") is None:
        raise gdb.GdbError("no modus_co_here: a program without coroutines, or without their"
                           " debugging symbols")
    with Selection():
        for thread in gdb.selected_inferior().threads():
            try:
                thread.switch()
                found += coroutines_of(thread)
            except gdb.error as error:  # it has no thread-local variables yet, or not any more
                trouble = error
    if not found and trouble:
        raise gdb.GdbError("the threads' loops cannot be read: %s" % trouble)
    return sorted(found, key=lambda co: co.number)


class Selection:
    """Keeps which thread and frame the user looks at."""

    def __enter__(self):
        self.thread = gdb.selected_thread()
        if self.thread is None:
            raise gdb.GdbError("the program is not running")
        self.level = gdb.selected_frame().level()

    def __exit__(self, *unused):
        if self.thread.is_valid():
            self.thread.switch()
            gdb.execute("frame %d" % self.level, to_string=True)


# --- stacks --------------------------------------------------------------------------------------


class FrameId:
    def __init__(self, sp, pc):
        self.sp, self.pc = sp, pc


class Suspended(gdb.unwinder.Unwinder):
    """From the innermost frame of a thread to that of a suspended coroutine; and the filter."""

    def __init__(self):
        super().__init__("modus coroutine")
        self.priority = 1000  # a filter's: before those that change what is shown
        self.registers = None

    def __call__(self, pending):
        if not self.registers or int(pending.read_register("rsp")) != self.thread_sp:
            return None
        # Its id lies below the coroutine's frames: gdb takes the other way round for an error.
        here = FrameId(gdb.Value(self.registers["rsp"] - WORD), pending.read_register("rip"))
        info = pending.create_unwind_info(here)
        for name, value in self.registers.items():
            info.add_saved_register(name, gdb.Value(value).cast(pending.read_register(name).type))
        return info

    def filter(self, frames):
        if not self.registers:
            return frames
        return itertools.dropwhile(lambda frame: self.is_of_thread(frame.inferior_frame()), frames)

    def is_of_thread(self, frame):
        return int(frame.read_register("rsp")) == self.thread_sp

    def run(self, registers, command):
        """In the selected thread, as if it were where the registers say."""
        self.thread_sp = int(gdb.newest_frame().read_register("rsp"))
        self.registers = registers
        gdb.invalidate_cached_frames()
        try:
            frame = gdb.newest_frame()
            while frame and self.is_of_thread(frame):
                frame = frame.older()
            if frame:
                frame.select()
            gdb.execute(command)
        finally:
            self.registers = None
            gdb.invalidate_cached_frames()


suspended = Suspended()
gdb.unwinder.register_unwinder(None, suspended, replace=True)
gdb.frame_filters[suspended.name] = suspended


# --- commands ------------------------------------------------------------------------------------


class InfoCoroutines(gdb.Command):
    """The coroutines of all threads: number, thread, name, and what each does."""

    def __init__(self):
        super().__init__("info coroutines", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        found = all_coroutines()
        if not found:
            print("No coroutines.")
            return
        width = max(len(co.name) for co in found)
        for co in found:
            where = "%4d  thread %-3d" % (co.number, co.thread.num)
            print("%s %-*s  %s" % (where, width, co.name, co.doing))


class OnCoroutine(gdb.Command):
    """Run a command (bt, if there is none) on the stack of a coroutine.

    coroutine NUMBER|NAME|all [COMMAND]"""

    def __init__(self):
        super().__init__("coroutine", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        word, _, command = argument.strip().partition(" ")
        chosen = [co for co in all_coroutines() if word in ("all", str(co.number), co.name)]
        if not chosen:
            raise gdb.GdbError("coroutine NUMBER|NAME|all [COMMAND]; info coroutines lists them")
        for co in chosen:
            print("Coroutine %d, %s: %s" % (co.number, co.name, co.doing))
            try:
                with Selection():
                    self.run(co, command.strip() or "bt")
            except gdb.error as error:
                raise gdb.GdbError(str(error))

    @staticmethod
    def run(co, command):
        registers = co.registers()
        co.thread.switch()
        if co.state == "running":
            gdb.execute(command)
        elif registers:
            suspended.run(registers, command)
        elif co.sp:
            raise gdb.GdbError("the stacks of suspended coroutines can be read on x86-64 only")


InfoCoroutines()
OnCoroutine()
