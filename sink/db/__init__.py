"""The database as the sink knows it: sessions and statements by name, connections, the schema."""
