"""cisbot/core/room"""
