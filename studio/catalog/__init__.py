"""Rules shared by catalog resources: slugs, brands, visibility, image limits."""
