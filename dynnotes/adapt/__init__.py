"""Make a model of your own dynamic: exits, skipped blocks, fewer tokens, experts, and a budget that is kept."""
from .experts import CopiedExperts, SplitExperts, with_copied_experts, with_split_experts
from .tokens import FewerTokens, with_fewer_tokens
from .weave import AdaptError, Woven

__all__ = ["AdaptError", "CopiedExperts", "FewerTokens", "SplitExperts", "Woven", "with_copied_experts",
           "with_fewer_tokens", "with_split_experts"]
