"""Level-triggered controllers of a server: plan, place, reconcile, publish, release."""
