"""From what a task names to splits: checks, formats, listing, plan. Shared by the server and `tidemill run`."""
