"""Configuration files for the server under test, from plain data."""
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path


@dataclass
class Listener:
    """A listen section. routes is the text between the braces that says what is served."""

    name: str  # by which the test asks for its endpoint
    model: str
    routes: str
    address: str = "127.0.0.1:0"
    also: list[str] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)
    min_version: str = "1.2"
    options: dict = field(default_factory=dict)

    @property
    def addresses(self) -> list[str]:
        return [self.address, *self.also]

    def text(self) -> str:
        lines = [f'listen "{self.address}" {{', f"    model = {self.model}"]
        if self.also:
            lines.append("    also = {" + ", ".join(f'"{a}"' for a in self.also) + "}")
        lines += ["    " + line for line in settings(self.options)]
        for c in self.certificates:
            lines.append(f'    tls {{ certificate = "{c.certificate}" key = "{c.key}" min_version = {self.min_version} }}')
        lines += ["    " + line for line in self.routes.strip().splitlines()]
        return "\n".join([*lines, "}"])


def settings(options: dict) -> list[str]:
    """key = value lines; what is not a plain word is quoted."""
    plain = re.compile(r"[A-Za-z0-9._-]+")
    return [f"{key} = {value}" if plain.fullmatch(str(value)) else f'{key} = "{value}"' for key, value in options.items()]


def config_text(listeners: list[Listener], options: dict) -> str:
    return "\n".join([*settings(options), *(l.text() for l in listeners)]) + "\n"
