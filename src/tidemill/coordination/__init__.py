"""Reports of instances in, orders out, over a journal port. Shared by the server and `tidemill run`."""
