"""What this study trains."""
