"""Base layer: settings, errors, random streams, files, devices and processes. Nothing here knows about attacks or models."""
