"""Chromium without a window, driven over the DevTools protocol: JSON messages through two pipes."""
import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from lib.clock import SLOW, eventually

BINARY = shutil.which("chromium")
# Nothing that asks the net, the sound, the GPU or a sandbox, which root and containers do not have.
FLAGS = [
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions", "--mute-audio",
    "--disable-features=Translate,MediaRouter,OptimizationHints", "--hide-scrollbars",
]
ANSWER = 20 * SLOW  # seconds for an answer of the browser's


class Browser:
    """One page in one browser. complaints: what its console or its network had to say against it;
    requests: every URL that it asked for."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="modus-browser-")
        theirs, ours = os.pipe()
        our_in, their_out = os.pipe()

        def in_child() -> None:  # commands come on 3, answers go out on 4
            command, answer = os.dup(theirs), os.dup(their_out)
            os.dup2(command, 3)
            os.dup2(answer, 4)

        self.process = subprocess.Popen(
            [BINARY, *FLAGS, f"--user-data-dir={self._folder}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=in_child, close_fds=False, start_new_session=True, env={**os.environ, "HOME": self._folder},
        )
        os.close(theirs)
        os.close(their_out)
        self._out, self._in, self._rest, self._last = ours, our_in, b"", 0
        os.set_blocking(self._in, False)
        self._session: str | None = None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_) -> None:
        try:
            self._session = None
            self.call("Browser.close")
            self.process.wait(5)
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)  # a session of its own, which we started
            self.process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- the protocol

    def _receive(self, until: float) -> dict | None:
        while b"\0" not in self._rest:
            try:
                some = os.read(self._in, 1 << 20)
                assert some, "the browser has ended"
                self._rest += some
            except BlockingIOError:
                if time.monotonic() >= until:
                    return None
                time.sleep(0.005)
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, message: dict) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f'{params["entry"]["text"]} {params["entry"].get("url", "")}')
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def call(self, method: str, **params) -> dict:
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + ANSWER
        while (answer := self._receive(until)) is not None:
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]
            self._note(answer)
        raise AssertionError(f"no answer to {method}")

    # --- the page

    def window(self, width: int, height: int = 900, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        eventually(lambda: self.evaluate("document.readyState") == "complete" and self.evaluate("location.href") != "about:blank", within=10)

    def evaluate(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, f"{script}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def text(self, selector: str) -> str:
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")

    def screenshot(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
