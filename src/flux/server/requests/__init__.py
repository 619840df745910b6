"""What a client asks and gets: the ROUTER's thread, and answers made of what is kept."""
