"""The models that the suite runs for. A new model gets all of it by one line in MODELS."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    name: str
    sized_by: str  # the key that says how many handlers can be held at once
    hold: str = "/sleep"  # the route of a handler that holds one of these while it waits
    queued: bool = False  # work waits for a thread: queue_timeout applies
    accepts_beyond: bool = False  # accepts connections whose requests nobody can serve yet
    shares_descriptors: bool = True  # a process serves many connections
    processes_of_threads: bool = False  # each of several processes has so many
    has_gil: bool = False  # handlers run on several threads of a process
    idle_is_free: bool = False  # idle connections cost neither a process nor a thread, by thousands

    def sized(self, n: int) -> dict:
        """Options with which n handlers are held at once, at most."""
        return {self.sized_by: n} | ({"processes": 1} if self.processes_of_threads else {})

    def __str__(self) -> str:
        return self.name


MODELS = [
    Model("process", sized_by="max_connections", shares_descriptors=False),
    Model("prefork", sized_by="processes"),
    Model("thread-pool", sized_by="threads", queued=True, accepts_beyond=True, has_gil=True, idle_is_free=True),
    Model("hybrid", sized_by="threads", queued=True, accepts_beyond=True, processes_of_threads=True, has_gil=True, idle_is_free=True),
    Model("event-loop", sized_by="threads", queued=True, accepts_beyond=True, has_gil=True, idle_is_free=True),
    Model("coroutine", sized_by="threads", hold="/block", queued=True, accepts_beyond=True, has_gil=True, idle_is_free=True),
]
