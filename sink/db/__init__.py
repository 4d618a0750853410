"""The database as the sink knows it: connections, statements by name, migrations, storage."""
