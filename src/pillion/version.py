"""The version, in the one place that `pyproject.toml` and the wire agree on."""

__version__ = "0.1.0"
