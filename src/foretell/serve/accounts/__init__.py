"""Who may use the server: users and their log-ins, keys, the waitlist, and the log of what was done to them."""
