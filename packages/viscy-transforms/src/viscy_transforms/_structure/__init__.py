"""Transforms of the dictionary rather than of pixels."""
