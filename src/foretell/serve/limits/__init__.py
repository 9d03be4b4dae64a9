"""What each account may use: tiers and prices, limits taken before a call and settled after it, and what was used."""
