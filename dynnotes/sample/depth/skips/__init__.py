"""Layers that a sample may skip."""
