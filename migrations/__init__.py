"""Database migrations, and the functions that apply them."""
