"""What a released feature store gives away: attacks of every kind, and the statistics that verdicts rest on."""
