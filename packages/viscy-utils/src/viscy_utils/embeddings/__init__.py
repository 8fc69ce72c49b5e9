"""Embeddings on disk: the store, its parts while a prediction runs, and its projections."""
