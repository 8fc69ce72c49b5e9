"""Transforms that mix pixels with their neighbours or with noise."""
