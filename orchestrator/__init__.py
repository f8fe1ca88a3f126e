"""Everything that knows about people, SQL and Ray."""
