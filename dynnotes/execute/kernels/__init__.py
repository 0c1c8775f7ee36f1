"""Operators of our own that leave out work for real, each with several backends behind one definition."""
