"""Two sets of predictions, record by record: what changed, by how much. `tidemill diff` and `tidemill.diff`."""
