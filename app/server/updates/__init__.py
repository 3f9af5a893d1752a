"""What an open tab is sent: one stream, a feed for each kind of news."""
