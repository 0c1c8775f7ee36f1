"""How a dynamic network runs: only what was decided, and billed to the last multiply-accumulate."""
from .cost import UncountedOperator, measured, price
from .dynamic import Dynamic
from .experts import FeedForwardExperts
from .trace import Decision, Trace
from .verbs import run, run_channels, run_experts, run_if, run_kept, run_where, run_while

__all__ = ["Decision", "Dynamic", "FeedForwardExperts", "Trace", "UncountedOperator", "measured", "price", "run",
           "run_channels", "run_experts", "run_if", "run_kept", "run_where", "run_while"]
