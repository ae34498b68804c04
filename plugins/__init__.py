"""cisbot's plugins: the maubot host of the coordinator, and skills. Imported as `cisbot.plugins`."""
