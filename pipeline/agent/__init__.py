"""One episode: a policy, its tools and a verifier turn a sample into a trajectory."""
