"""One file per peer: its app, its jobs and its worker's command line, as its own documentation would have them.

These files run in the peer's own environment (`bench/environments.py`); `driver.py` and `jobs.py` are the protocol and
the bodies that they share. `bench/catalog.py` lists the peers for the harness.
"""
