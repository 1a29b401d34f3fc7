"""Look whether the servers that a run is to use can be used, before anything waits for them."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.redaction import redacted

_TIMEOUT = 3.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def reach_this_machine_directly() -> None:
    """Let no proxy of the environment stand between this process and servers on this machine."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, *_LOOPBACK]))


def check_prefect(api: str) -> None:
    """Refuse a Prefect server that does not answer, for which Prefect itself would wait for long.

    Args:
        api: The server's address, as in ``PREFECT_API_URL``.

    Raises:
        ValueError: If nothing answers there, or if it is no address.
        OSError: If Prefect cannot write into its own folder.
    """
    without = "or unset PREFECT_API_URL: a run needs no server"
    try:
        parts = urlsplit(api)
        if parts.scheme not in ("http", "https"):
            raise ValueError(f"it must begin with http:// or https://, {without}")
        anonymous = parts._replace(
            netloc=parts.netloc.rpartition("@")[2], path=f"{parts.path.rstrip('/')}/health"
        )
        urllib.request.build_opener().open(anonymous.geturl(), timeout=_TIMEOUT).close()
    except urllib.error.HTTPError as error:
        is_cloud = (parts.hostname or "").endswith("prefect.cloud")
        asks_for_credentials = error.code in (401, 403)  # which Prefect sends, unlike this request
        if not (asks_for_credentials or is_cloud):
            what = "which is not Prefect's API, whose address ends in /api" if error.code == 404 else ""
            reason = ", ".join(filter(None, (f"HTTP status {error.code}", what)))
            raise ValueError(_unreachable(api, reason, without)) from error
    except OSError as error:
        raise ValueError(_unreachable(api, getattr(error, "reason", error), without)) from error
    except (ValueError, HTTPException) as error:
        raise ValueError(f"PREFECT_API_URL={redacted(api)} is no address of a server: {error}") from error
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not os.access(home, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        why = error.strerror or error
        raise OSError(
            f"Prefect cannot write to {home} ({why}); set PREFECT_HOME to another folder"
        ) from error


def _unreachable(api: str, reason: object, without: str) -> str:
    """Return the message on a server that does not answer."""
    return f"Prefect's server at {redacted(api)} does not answer ({reason}); start it, {without}"
