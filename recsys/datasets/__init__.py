"""Readers of corpora: functions that turn raw files into checked frames."""
