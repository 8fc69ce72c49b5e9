"""Normalisation: statistics of the pixels of a store, and what uses them."""
