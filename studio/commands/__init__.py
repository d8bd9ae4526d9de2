"""Commands for operators: backup, restore and the move from SQLite."""
