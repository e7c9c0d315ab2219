"""From a spec to finished runs: what they read, the stages they go through, and the machines they run on."""
