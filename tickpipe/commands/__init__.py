"""The commands, one module per group; heavy libraries are imported inside the commands, so that `--help` is quick."""
