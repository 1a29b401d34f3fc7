"""The file that starts an MLflow server for a team."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

SERVICES = yaml.safe_load((Path(__file__).parents[2] / "mlflow" / "compose.yaml").read_text())["services"]


def test_every_image_has_a_version() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:v?[\w.-]*\d[\w.-]*", service["image"]), name


def test_no_password_is_part_of_an_address_or_a_command_that_it_could_break() -> None:
    for name, service in SERVICES.items():
        for part in ("command", "entrypoint", "healthcheck"):
            assert not re.search(r"\$\{\w*PASSWORD", str(service.get(part))), (name, part)
    assert SERVICES["server"]["environment"]["PGPASSWORD"] == "${POSTGRES_PASSWORD}"


def test_nothing_is_open_to_other_machines() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
