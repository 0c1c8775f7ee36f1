"""How many layers run depends on the sample."""
