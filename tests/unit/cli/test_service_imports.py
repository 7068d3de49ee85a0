"""What a service does not use it does not load: each megabyte counts three times, and for as long as it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

_UNUSED = {
    "jinja2": "no service makes pages",
    "console": "the operators' page",
    "starlette": "the operators' page",
    "uvicorn": "the operators' page",
    "cryptography.x509": "certificates are OpenSSL's own business",
    "cryptography.hazmat.primitives.serialization.ssh": "keys are in the product's own documents",
    "confluent_kafka.admin": "services make no topics",
    "confluent_kafka.schema_registry": "schemas travel in the product's own code",
    "httpx": "comes with confluent_kafka.schema_registry",
    "deploy": "the lab and the demo",
    "failover": "promotion and failback",
    "embassy.cli.promote": "promotion and failback",
    "embassy.cli.keys": "key files are made elsewhere",
}


@pytest.mark.parametrize("service", ["producer", "bridge", "consumer"])
def test_a_service_loads_nothing_that_it_does_not_use(service: str) -> None:
    script = (
        "import importlib, sys\n"
        "import embassy.__main__, embassy.cli.main\n"
        f"importlib.import_module('embassy.cli.{service}')\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert f"embassy.cli.{service}" in loaded
    assert not {name: why for name, why in _UNUSED.items() if name in loaded}
