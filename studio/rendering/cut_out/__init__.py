"""Find the product in its photo and cut it out: mask, edges, confidence, and whether it stands."""
