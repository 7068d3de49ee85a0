from __future__ import annotations

import pytest

from embassy.model.errors import ConfigurationError
from embassy.pg.connection import connect


def test_a_dsn_that_gives_the_sessions_keys_away_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="TLS keys written to a file"):
        connect("host=example.invalid user=u dbname=d sslkeylogfile=/tmp/keys", application_name="test")
