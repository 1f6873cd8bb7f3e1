"""Lookup tables: rows and files."""
