"""The commands of `splavu`, one module each: arguments and what runs."""
