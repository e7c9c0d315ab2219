"""Ray clusters: a local one in the command, an existing one at an address, or a submitted job."""
