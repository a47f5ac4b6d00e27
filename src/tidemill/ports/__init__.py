"""What the rules need of the world, as Protocols. Adapters implement them; fakes subclass them."""
