"""The address of Redis and the sources of settings."""

from __future__ import annotations

import json
import os

import pytest

from sandhog import ConfigurationError
from sandhog.address import load_settings, parse_address


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("SANDHOG_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize(
    ("url", "shown", "facts"),
    [
        ("redis://h", "redis://h:6379", ("single", False, 0)),
        ("rediss://u:p%40@h:7/3", "rediss://h:7/3", ("single", True, 3)),
        ("redis://[::1]:7", "redis://[::1]:7", ("single", False, 0)),
        ("unix:/run/r.sock", "unix:/run/r.sock", ("unix", False, 0)),
        ("unix:///run/r.sock?db=2", "unix:/run/r.sock?db=2", ("unix", False, 2)),
        (
            "redis+sentinel://a,b:1/main/2",
            "redis+sentinel://a:26379,b:1/main/2",
            ("sentinel", False, 2),
        ),
        ("rediss+cluster://a,b:1", "rediss+cluster://a:6379,b:1", ("cluster", True, 0)),
    ],
)
def test_a_url_is_parsed(url, shown, facts):
    address = parse_address(url)
    assert (str(address), (address.kind, address.encrypted, address.database)) == (shown, facts)


def test_user_and_password_are_decoded_and_never_shown():
    address = parse_address("rediss://u%3A:p%40@h:7/3")
    assert (address.user, address.password) == ("u:", "p@")
    assert "p@" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    "url", ["http://h", "h:6379", "redis+sentinel://h", "redis://h:port", "redis://h/x", "redis://"]
)
def test_a_bad_url_is_refused_with_the_allowed_forms(url):
    with pytest.raises(ConfigurationError, match="redis\\[s\\]://"):
        parse_address(url)


def test_an_error_shows_no_password():
    with pytest.raises(ConfigurationError) as caught:
        parse_address("redis://user:secret@h/x")
    assert "secret" not in str(caught.value)


def test_without_settings_redis_is_on_this_machine():
    settings = load_settings()
    assert (settings.url, settings.namespace) == ("redis://127.0.0.1:6379", "default")


def test_sources_override_each_other_key_by_key(monkeypatch, tmp_path):
    file = tmp_path / "config/sandhog/sandhog.toml"
    file.parent.mkdir(parents=True)
    file.write_text('namespace = "file"\n[redis]\nurl = "redis://file"\nwait_replicas = 2\n')
    assert load_settings().url == "redis://file"
    secret = tmp_path / "url"
    secret.write_text("redis://secret\n")
    monkeypatch.setenv("SANDHOG_REDIS_URL_FILE", str(secret))
    settings = load_settings()
    assert (settings.url, settings.namespace) == ("redis://secret", "file")
    assert settings.wait_replicas == 2
    monkeypatch.setenv("SANDHOG_REDIS_URL", "redis://variable")
    assert load_settings(namespace="mine").namespace == "mine"
    assert load_settings("redis://argument").url == "redis://argument"
    assert load_settings().url == "redis://variable"


def test_a_file_that_is_named_replaces_the_others(monkeypatch, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('[redis]\nurl = "redis://own"\n')
    monkeypatch.setenv("SANDHOG_CONFIG", str(file))
    assert load_settings().url == "redis://own"
    file.write_text("[redis")
    with pytest.raises(ConfigurationError, match=r"own\.toml"):
        load_settings()


def test_a_running_up_is_found(tmp_path):
    state = tmp_path / "state/sandhog"
    state.mkdir(parents=True)
    record = {"pid": os.getpid(), "redis": "unix:/run/up.sock", "namespace": "dev"}
    (state / "up.json").write_text(json.dumps(record))
    settings = load_settings()
    assert (settings.url, settings.namespace) == ("unix:/run/up.sock", "dev")
    (state / "up.json").write_text(json.dumps({**record, "pid": 2**22 + 1}))
    assert load_settings().url == "redis://127.0.0.1:6379"


def test_a_bad_namespace_is_refused():
    with pytest.raises(ConfigurationError, match="'a b'"):
        load_settings(namespace="a b")
