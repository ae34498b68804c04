"""The chat face: `!dag` commands in, short replies readable on a phone out. Text only, decided elsewhere."""
