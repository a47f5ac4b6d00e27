"""One record of a finished task again, alone and here: what `tidemill replay` does."""
