"""Alembic's directory: run by opening.py at every start, shipped in the wheel."""
