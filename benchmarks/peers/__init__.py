"""Other stream processors at the same work as the stream app, each written as its own documentation recommends."""
