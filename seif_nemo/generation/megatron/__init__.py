"""Generation in place, on the weights that are being trained."""
