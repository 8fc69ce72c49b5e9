"""Pictures during training: samples to draw and loggers that take images."""
