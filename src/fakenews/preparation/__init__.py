"""From any table of texts to a prepared dataset, in bounded memory."""
