"""What runs inside an instance: reads a split, calls the model, writes predictions exactly once."""
