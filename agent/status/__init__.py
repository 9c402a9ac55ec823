"""What the running agent tells of itself: a socket, and those who ask there."""
