"""What a run is made of: trainer, and export of what it has trained."""
