"""cisbot/store"""
