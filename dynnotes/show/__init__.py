"""Figures, generated tables and pages, and the widgets of the book."""
