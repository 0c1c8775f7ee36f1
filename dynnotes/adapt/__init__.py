"""Make a model of your own dynamic: exits, skipped blocks, fewer tokens, experts, and a budget that is kept."""
from .weave import AdaptError, Woven

__all__ = ["AdaptError", "Woven"]
