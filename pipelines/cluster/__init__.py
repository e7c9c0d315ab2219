"""Ray: embedded in the command, joined at an address, or reached by a submitted job."""
