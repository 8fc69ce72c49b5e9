"""What training modules share: optimiser and schedule, checkpoints, and values that are not finite."""
