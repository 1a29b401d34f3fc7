"""Stages, Prefect flows, MLflow tracking and the command line around semantic_ids and recsys."""
