"""The Windows side on the command line: storing an EA's ticks on this machine, and forwarding them."""
