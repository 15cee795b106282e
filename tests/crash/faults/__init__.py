"""The faults of the chaos bed, by area. `catalogue.py` lists them all."""
