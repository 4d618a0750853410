"""The state of the pipeline: services, end of the log, lag."""
