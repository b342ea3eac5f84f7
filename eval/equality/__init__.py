"""When two answers are the same: one notation, then shapes, exact numbers, units and words; algebra for the rest."""
