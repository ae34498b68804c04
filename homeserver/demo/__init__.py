"""The demo: a real Synapse, four nodes, and the main job in all its forms, judged from outside."""
