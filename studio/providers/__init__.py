"""One module per kind of generation model: each turns frozen inputs into pictures, and knows no rows."""
