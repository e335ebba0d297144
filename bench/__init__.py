"""One command per performance claim, each measured against a peer in the same run."""
