"""Mathematics that several methods share, each written once."""
