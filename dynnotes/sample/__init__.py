"""Networks whose depth, width or parameters depend on the sample."""
