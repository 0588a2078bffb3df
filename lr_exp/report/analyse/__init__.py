"""Groups runs into rows, checks that they can be compared, and computes their statistics."""
