"""cisbot/worker"""
