"""Stages, Prefect flows, MLflow tracking and the command line around semantic_ids and recsys."""

import os

# Prefect and MLflow report usage to their makers unless told otherwise before they are imported.
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Threads that spin while they wait starve each other where cores are few or shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> str:
    """Return ``__version__``, which semantic_ids holds; it is imported late because it loads torch."""
    if name == "__version__":
        from semantic_ids import __version__  # noqa: PLC0415

        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
