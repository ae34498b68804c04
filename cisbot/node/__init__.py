"""cisbot/node"""
