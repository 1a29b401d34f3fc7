"""Lay out a benchmark's steps, run them, and keep what they make."""
