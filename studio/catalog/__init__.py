"""Rules shared by catalogue resources: slugs, brands, visibility, image limits."""
