"""The node's own database: one SQLite file, every step of the node one transaction."""
