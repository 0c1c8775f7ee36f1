"""Who decides: gates, confidence, routers."""
