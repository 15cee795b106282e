"""The engine: everything that runs in a worker process. `worker.py` puts it together; start reading there."""

from pillion.loader import loaded
from pillion.worker.embedding import embed
from pillion.worker.worker import Worker

__all__ = ["Worker", "embed"]

loaded("worker")
