"""cisbot/matrix"""
