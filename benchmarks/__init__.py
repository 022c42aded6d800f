"""One command each: prints a table, writes JSON, and fails where what must hold does not."""
