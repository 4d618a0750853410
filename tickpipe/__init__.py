"""The command line of Tickpipe, and the embedded stack that runs the whole pipeline on one machine."""
