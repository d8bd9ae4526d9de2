"""Sample images that the project itself drew or rendered, for the demo data and the tests."""
