"""Measurements of this project: speed and memory (`python -m bench`), and others by module."""
