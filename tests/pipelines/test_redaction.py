from __future__ import annotations

import pytest

from pipelines.redaction import redact_error, redacted, secrets_in


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://alice:hunter2@host:5000/x", "http://***@host:5000/x"),
        (
            "at postgresql+psycopg2://a:hunter2@db/mlflow, twice",
            "at postgresql+psycopg2://***@db/mlflow, twice",
        ),
        ("https://hunter2@github.com/x", "https://***@github.com/x"),
        ("http://a:hun@ter2@host", "http://***@host"),
        ("mysql://a:hun/ter2@host/db", "mysql://***@host/db"),
        ("http://a:hunter2@b and http://c:hunter2@d", "http://***@b and http://***@d"),
        ("http://h/x?token=hunter2&page=1", "http://h/x?token=***&page=1"),
        ("http://h/x?page=1&X-Amz-Signature=hunter2", "http://h/x?page=1&X-Amz-Signature=***"),
        ("host=db password=hunter2 user=a", "host=db password=*** user=a"),
        ("tracking_uri=http://a:hunter2@h", "tracking_uri=http://***@h"),
        ("DB_PASSWORD=hunter2", "DB_PASSWORD=***"),
        ("{'api_key=hunter2'}", "{'api_key=***'}"),
    ],
)
def test_secrets_are_hidden_and_all_else_is_left(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:5000/#/experiments/1",
        "write to ada@example.org or see https://example.org/ada",
        "sqlite:////tmp/ws/mlflow.db",
        "tokenizers=[rq-vae]",
        "codes.key=asin",
        "tokens=3 keys=4",
    ],
)
def test_what_is_no_secret_is_left(text: str) -> None:
    assert redacted(text) == text


def test_secrets_are_found_at_any_depth_by_their_names_or_in_addresses() -> None:
    values = {
        "tokenizers": [{"params": {"pad_token": "x", "token": None, "use_auth_token": True}}],
        "codes": {"key": "asin"},
        "text": {"params": {"token": "x", "nested": [{"secret-key": 7}]}},
        "files": ["plain", "ftp://a:b@c"],
    }
    assert list(secrets_in(values)) == ["text.params.token", "text.params.nested.0.secret-key", "files.1"]


def test_the_messages_of_an_error_and_of_its_causes_lose_their_secrets() -> None:
    def fail() -> None:
        try:
            raise OSError(111, "no answer from http://a:hunter2@h")
        except OSError as cause:
            raise ValueError("cannot log to http://a:hunter2@h") from cause

    with pytest.raises(ValueError, match="cannot log") as caught:
        fail()
    redact_error(caught.value)
    assert str(caught.value) == "cannot log to http://***@h"
    assert "hunter2" not in repr(caught.value.__cause__)
