"""Checkpoint files: our own with their card, and those of other people."""
