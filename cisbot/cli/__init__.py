"""cisbot/cli"""
