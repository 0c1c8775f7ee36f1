"""How much of a layer runs depends on the sample."""
