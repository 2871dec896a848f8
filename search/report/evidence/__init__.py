"""What the final evaluation shows: answers, scores, how each backbone stands, and which differ."""
