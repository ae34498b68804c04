"""cisbot/core/claims"""
