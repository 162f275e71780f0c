"""Adversarial training: runs, recipes, the one training loop, validation and alarms."""
