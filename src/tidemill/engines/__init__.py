"""What places instances: adapters of `ports.engine`."""
