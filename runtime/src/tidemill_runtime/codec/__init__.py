"""Reading records: one module per input format, all handing out `Records` block by block."""
