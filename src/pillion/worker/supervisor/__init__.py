"""`pillion worker --processes N`: one supervisor, one zygote, N workers. `supervisor.py` tells the whole story."""
