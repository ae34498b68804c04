"""What travels through the room: wire contents, decoded events, and the one decoder for hostile input."""
