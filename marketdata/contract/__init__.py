"""The HTTP contract as both of its ends need it: the producer, the relay, and whoever posts to them (docs/http.md)."""
