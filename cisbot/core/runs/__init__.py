"""cisbot/core/runs"""
