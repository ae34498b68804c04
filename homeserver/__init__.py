"""A Matrix homeserver for trying and testing cisbot: Synapse, installed and started from here."""
