"""cisbot/core/dags"""
