"""What data is there, and what is missing."""
