"""Field offsets: from the executable's own type information first, from the table that comes with the agent second."""
