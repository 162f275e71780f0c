"""The lowest package: settings, errors, random streams, files, devices, processes; no attacks, no models."""
