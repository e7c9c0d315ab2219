"""The way from a spec to finished runs: their data, their stages, and the clusters that they run on."""
