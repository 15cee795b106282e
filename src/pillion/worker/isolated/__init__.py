"""Jobs with `isolation="process"`: each run has a process of its own. `pool.py` tells the whole story."""
