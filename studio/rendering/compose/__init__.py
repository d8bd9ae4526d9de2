"""Place a cut-out on a canvas: framing, background, shadow, grading, and the file of the prediction."""
