"""Make a model of your own dynamic: exits, skipped blocks, fewer tokens, experts, and a budget that is kept."""
from .calibrate import Guarantee, calibrate, disagreement, error, guarantee
from .exits import Exits, with_exits
from .experts import CopiedExperts, SplitExperts, with_copied_experts, with_split_experts
from .skips import Skips, with_skips
from .tokens import FewerTokens, with_fewer_tokens
from .weave import AdaptError, Woven

__all__ = ["AdaptError", "CopiedExperts", "Exits", "FewerTokens", "Guarantee", "Skips", "SplitExperts", "Woven",
           "calibrate", "disagreement", "error", "guarantee", "with_copied_experts", "with_exits",
           "with_fewer_tokens", "with_skips", "with_split_experts"]
