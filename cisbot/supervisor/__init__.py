"""cisbot/supervisor"""
