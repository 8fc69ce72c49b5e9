"""What earns biology and what earns mixing: the parts of `benchmarks/representation.py`."""
