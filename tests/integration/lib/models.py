"""The models that the suite runs for. A new model gets all of it by one line in MODELS."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    name: str
    sized_by: str  # the key that says how many run handlers run at once
    queued: bool = False  # work waits for a thread: queue_timeout applies
    accepts_beyond: bool = False  # accepts connections whose requests nobody can serve yet
    shares_descriptors: bool = True  # a process serves many connections
    idle_is_free: bool = False  # idle connections cost neither a process nor a thread, by thousands

    def sized(self, n: int) -> dict:
        """Options with which n run handlers run at once."""
        return {self.sized_by: n}

    def __str__(self) -> str:
        return self.name


MODELS = [
    Model("process", sized_by="max_connections", shares_descriptors=False),
    Model("prefork", sized_by="processes"),
    Model("thread-pool", sized_by="threads", queued=True, accepts_beyond=True, idle_is_free=True),
    Model("event-loop", sized_by="threads", queued=True, accepts_beyond=True, idle_is_free=True),
]
