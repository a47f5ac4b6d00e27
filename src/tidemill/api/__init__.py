"""The doors of a server: JSON API, runner door, health, metrics."""
