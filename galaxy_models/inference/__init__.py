"""What is done with a trained network: answers, their averages over symmetries, what they cost, other formats."""
