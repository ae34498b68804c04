"""cisbot/core/chat"""
