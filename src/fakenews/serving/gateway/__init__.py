"""What people and programs talk to: it merges, routes, logs, and runs no model."""
