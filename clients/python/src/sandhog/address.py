"""The address of Redis and the namespace: from arguments, variables, files or a running `up`.

The sources are those of the program `sandhog`, in the same order.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import unquote

from .errors import ConfigurationError

DEFAULT_URL = "redis://127.0.0.1:6379"
"""Address that is used if no source names one."""

_FORMS = (
    "use redis[s]://[user:password@]host:port[/db], unix:/path, "
    "redis[s]+sentinel://host:port,…/service or redis[s]+cluster://host:port,…"
)
_SCHEMES: dict[str, tuple[Literal["single", "unix", "sentinel", "cluster"], bool]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "valkey": ("single", False),
    "valkeys": ("single", True),
    "unix": ("unix", False),
    "redis+unix": ("unix", False),
    "valkey+unix": ("unix", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PORTS = {"sentinel": 26379, "single": 6379, "cluster": 6379}


@dataclass(frozen=True, slots=True)
class Tls:
    """Files for encrypted connections; None stands for the machine's own authorities."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed address of Redis."""

    kind: Literal["single", "unix", "sentinel", "cluster"]
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    encrypted: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls = field(default_factory=Tls)
    sentinel_user: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Returns the address without user and password."""
        if self.kind == "unix":
            return f"unix:{self.path}" + (f"?db={self.database}" if self.database else "")
        scheme = ("rediss" if self.encrypted else "redis") + {
            "single": "",
            "sentinel": "+sentinel",
            "cluster": "+cluster",
        }[self.kind]
        hosts = ",".join(_host_text(host, port) for host, port in self.hosts)
        path = f"/{self.service}" if self.service else ""
        return f"{scheme}://{hosts}{path}" + (f"/{self.database}" if self.database else "")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a client."""

    url: str
    address: RedisAddress
    namespace: str
    wait_replicas: int = 0


def load_settings(url: str | None = None, namespace: str | None = None) -> Settings:
    """Returns the settings: arguments, else variables, else files, else a running `sandhog up`.

    Raises:
        ConfigurationError: A value is not valid.
    """
    sources = _Sources()
    url = url or sources.get("redis.url")
    namespace = namespace or sources.get("namespace")
    if url is None:
        running = _running_up(sources.get("state.dir"))
        if running is not None:
            url = running[0]
            namespace = namespace or running[1]
    url, namespace = url or DEFAULT_URL, namespace or "default"
    if not _NAMESPACE.fullmatch(namespace):
        raise ConfigurationError(
            f"the namespace {namespace!r} is not valid",
            hint="use 1 to 64 of A-Z a-z 0-9 . _ -",
        )
    tls = Tls(*(sources.get(f"redis.tls_{part}") for part in ("ca", "cert", "key")))
    address = parse_address(
        url,
        tls=tls,
        sentinel_user=sources.get("redis.sentinel_user"),
        sentinel_password=sources.get("redis.sentinel_password"),
    )
    replicas = sources.get("redis.wait_replicas") or "0"
    if not replicas.isdecimal():
        raise ConfigurationError(
            f"redis.wait_replicas {replicas!r} is no number", hint="use a whole number from 0"
        )
    return Settings(url, address, namespace, int(replicas))


def parse_address(
    url: str,
    *,
    tls: Tls | None = None,
    sentinel_user: str | None = None,
    sentinel_password: str | None = None,
) -> RedisAddress:
    """Parses the URL of one server, of Sentinels or of a cluster.

    Raises:
        ConfigurationError: The URL has none of the allowed forms. Its password is not shown.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in _SCHEMES:
        raise ConfigurationError(
            f"the Redis URL {_masked(url)!r} has an unknown scheme", hint=_FORMS
        )
    kind, encrypted = _SCHEMES[scheme]
    rest = rest.removeprefix("//")
    if kind == "unix":
        path, _, query = rest.partition("?")
        database = query.removeprefix("db=") if query.startswith("db=") else ""
        return RedisAddress("unix", path=unquote(path), database=_database(url, database))
    credentials, _, place = rest.rpartition("@")
    user, _, password = credentials.partition(":")
    hosts_text, _, path = place.partition("?")[0].partition("/")
    service, database = (path, "")
    if kind == "sentinel":
        service, _, database = path.partition("/")
        if not service:
            raise ConfigurationError(
                f"the Redis URL {_masked(url)!r} names no service", hint=_FORMS
            )
    elif kind == "single":
        service, database = "", path
    return RedisAddress(
        kind,
        hosts=tuple(_host(url, text, _PORTS[kind]) for text in hosts_text.split(",")),
        service="" if kind != "sentinel" else service,
        database=_database(url, database if kind != "cluster" else ""),
        encrypted=encrypted,
        user=unquote(user) or None,
        password=unquote(password) or None,
        tls=tls or Tls(),
        sentinel_user=sentinel_user,
        sentinel_password=sentinel_password,
    )


def _host(url: str, text: str, default_port: int) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", text)
    if match is None:
        raise ConfigurationError(
            f"the Redis URL {_masked(url)!r} has the host {text!r}", hint=_FORMS
        )
    return match[1].strip("[]"), int(match[2] or default_port)


def _host_text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _database(url: str, text: str) -> int:
    if text and not text.isdecimal():
        raise ConfigurationError(
            f"the Redis URL {_masked(url)!r} has the database {text!r}", hint=_FORMS
        )
    return int(text or 0)


def _masked(url: str) -> str:
    return re.sub(r"://[^@/]*@", "://***@", url)


class _Sources:
    """Variables and settings files. Files are read when a variable is not set."""

    def __init__(self) -> None:
        self._files: dict[str, Any] | None = None

    def get(self, key: str) -> str | None:
        variable = "SANDHOG_" + key.upper().replace(".", "_")
        value, file = os.environ.get(variable), os.environ.get(f"{variable}_FILE")
        if value:
            return value
        if file:
            try:
                return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"{variable}_FILE names {file!r}, which cannot be read: {error}"
                ) from error
        if self._files is None:
            self._files = _read_files()
        found: Any = self._files
        for part in key.split("."):
            found = cast("dict[str, Any]", found).get(part) if isinstance(found, dict) else None
        if isinstance(found, int) and not isinstance(found, bool):
            return str(found)
        return found if isinstance(found, str) and found else None


def _read_files() -> dict[str, Any]:
    """Returns the settings of all files; a later file overrides an earlier one key by key."""
    named = os.environ.get("SANDHOG_CONFIG")
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    paths = (
        [Path(named)]
        if named
        else [Path("/etc/sandhog/sandhog.toml"), Path(home).expanduser() / "sandhog/sandhog.toml"]
    )
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, PermissionError):
            continue
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"the settings file {path} is not valid: {error}") from error
        for key, value in found.items():
            before = merged.get(key)
            both = isinstance(before, dict) and isinstance(value, dict)
            merged[key] = {**cast("dict[str, Any]", before), **value} if both else value
    return merged


def _running_up(state_dir: str | None) -> tuple[str, str] | None:
    """Returns the Redis and the namespace of a running `sandhog up` of this user."""
    if state_dir is None:
        home = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        state_dir = str(Path(home).expanduser() / "sandhog")
    try:
        record = json.loads((Path(state_dir) / "up.json").read_text(encoding="utf-8"))
        os.kill(int(record["pid"]), 0)
        return str(record["redis"]), str(record["namespace"])
    except PermissionError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
