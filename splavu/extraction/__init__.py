"""Videos and images -> clips -> a frozen encoder -> a feature store."""
