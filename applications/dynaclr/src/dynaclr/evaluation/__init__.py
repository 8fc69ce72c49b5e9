"""What an embedding is worth: probes, mixing of experiments, smoothness in time, and a report of them side by side."""
