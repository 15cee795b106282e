"""The engine: everything that runs in a worker process. `worker.py` puts it together; start reading there."""

from pillion.worker.worker import Worker

__all__ = ["Worker"]
