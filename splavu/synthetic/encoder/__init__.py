"""How the demo encoder was trained."""
