"""Pictures that the project made itself, for the demonstration, the seed and the tests."""
