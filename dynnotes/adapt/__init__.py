"""Make a model of your own dynamic: exits, skipped blocks, fewer tokens, experts, and a budget that is kept."""
from .calibrate import Guarantee, calibrate, disagreement, error, guarantee
from .exits import Exits, with_exits
from .skips import Skips, with_skips
from .weave import AdaptError, Woven

__all__ = ["AdaptError", "Exits", "Guarantee", "Skips", "Woven", "calibrate", "disagreement", "error", "guarantee",
           "with_exits", "with_skips"]
