"""cisbot/core"""
