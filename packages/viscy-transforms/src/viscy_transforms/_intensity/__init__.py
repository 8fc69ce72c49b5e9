"""Transforms of pixel values, each on its own."""
