"""The hub's database, SQLite or PostgreSQL, behind the ports of persistence."""
