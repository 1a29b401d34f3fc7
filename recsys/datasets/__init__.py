"""Readers: raw files of a corpus → checked frames."""
