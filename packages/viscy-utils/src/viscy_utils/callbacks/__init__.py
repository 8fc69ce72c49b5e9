"""Callbacks for training and prediction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoint_visualization": ["CheckpointVisualization"],
        "embedding_writer": ["EmbeddingWriter"],
        "fast_network": ["FastNetwork"],
        "online_evaluation": ["OnlineEvaluation"],
        "prediction_writer": ["HCSPredictionWriter"],
    },
)
