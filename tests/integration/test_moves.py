"""Connections on their way from one generation to the next, when something is short or somebody dies."""
from lib.clock import SLOW, eventually
from lib.config import Listener, config_text
from lib.models import MODELS, Model
from lib.raw import request
from lib.server import Server
from lib.site import BASIC_ROUTES, SIZES, watch

PREFORK = next(m for m in MODELS if m.name == "prefork")


def listener(model: Model, **options) -> Listener:
    return Listener("main", model.name, BASIC_ROUTES, options=SIZES | options)


def test_fewer_descriptors_where_they_go(serve, model: Model) -> None:
    """Four processes hold more than one may open. Who has asked is answered; idle ones make room, and are
    counted."""
    server = serve(PREFORK, listener(PREFORK, max_connections=300), nofile=(128, 128))
    wires = [server["main"].connect() for _ in range(200)]
    for wire in wires:
        wire.ask("/hello")
    busy = wires[::4]
    for wire in busy:
        wire.send(request("/sleep?ms=100") + 3 * request("/hello"))
    server.reload([listener(model, max_connections=301), watch(PREFORK)])
    for wire in busy:
        assert [wire.answer().status for _ in range(4)] == [200] * 4

    def accounted() -> bool:
        count = server.listener_status("main")["connections"]
        return count["open"] + count["evicted"] == len(wires)

    eventually(accounted, within=5)
    assert server["main"].ask("/hello").status == 200
    for wire in wires:
        wire.close()
