"""Re-index, checks before a switch, rollback, reconcile, backup, capacity."""
