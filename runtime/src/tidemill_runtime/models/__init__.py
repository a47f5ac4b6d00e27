"""What a model package is and how a model is called."""
