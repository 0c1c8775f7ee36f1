"""Answers on the way: a sample leaves at the first exit that is sure enough."""
