"""The static networks that papers make dynamic."""
