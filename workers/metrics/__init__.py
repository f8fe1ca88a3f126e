"""How good is a router? Frontier, areas, selections and their resamples (protocol 2)."""
