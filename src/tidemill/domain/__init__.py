"""Pure rules on the standard library alone: life, splits, locations, layout, receipts, errors."""
