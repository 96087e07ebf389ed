"""What a network sees: each module makes one kind of picture, and the numbers behind it."""
