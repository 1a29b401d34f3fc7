"""Checked reading of text lines, tab-separated files and tables, in parts where files are large."""
