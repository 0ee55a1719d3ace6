"""Whether action recognition is as good for one group of people as for another."""
