"""What a `Setup` takes over from code, and when."""

from __future__ import annotations

from typing import Any

import pytest

from pillion.config import RedisSettings
from pillion.errors import ConfigError
from pillion.registry import Registry
from pillion.setup import Setup


@pytest.mark.parametrize("before", ["redis://a:1", {"url": "redis://a:1"}, RedisSettings(url="redis://a:1")])
def test_a_mapping_changes_only_what_it_names(before: Any) -> None:
    setup = Setup(before)
    setup.configure(redis={"pool_size": 4})
    assert (setup.config.redis.url, setup.config.redis.pool_size) == ("redis://a:1", 4)
    setup.configure("redis://b:2")
    assert setup.config.redis == RedisSettings(url="redis://b:2")


def test_a_refused_option_changes_nothing() -> None:
    setup = Setup("redis://a:1", timeout=9)
    with pytest.raises(ConfigError, match="timeout"):
        setup.configure(timout=3)
    assert setup.config.timeout == 9


def test_an_empty_registry_of_ones_own_is_kept() -> None:
    own = Registry()
    assert Setup("redis://a:1", registry=own).registry is own


def test_no_connection_is_made_by_setting_up() -> None:
    setup = Setup("redis://nobody.invalid:1")
    assert setup.store.keys.queue("x") == "queue:x"
