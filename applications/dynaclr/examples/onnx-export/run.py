"""Embed a batch of patches with onnxruntime: any number of them, float32 (B, C, Z, Y, X), normalised as in training."""

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("encoder.onnx")
patches = np.random.default_rng(0).uniform(-2, 2, (5, 2, 1, 24, 24)).astype(np.float32)
features, projections = session.run(None, {session.get_inputs()[0].name: patches})
assert features.shape == (5, 128)
assert projections.shape == (5, 32)
np.save("features.npy", features)
